"""Products against e3nn's, one tensor product of mode "uuu" with two equal factors for each."""

import pytest
import torch
from e3nn import o3

from pyg_cgconv._layout import shape, to_ir_mul, to_mul_ir
from pyg_cgconv.products import NodeProducts
from tests.rotations import assert_equivariant


@pytest.mark.parametrize(
    ("irreps", "wanted"),
    [
        ("4x0e+4x1o+4x2e", "4x0e+2x1o+3x2e"),
        ("2x0e+2x1o+2x2e+2x3o", "0e+1o+2e+3o"),
        ("2x0o+2x0e+2x1o+2x1e", "5x0e+0o+1o+1e"),
        ("3x1o", "0e+1o"),  # the cross product of a vector with itself is zero
    ],
)
def test_products_are_those_of_e3nn(irreps, wanted):
    torch.manual_seed(0)
    module = NodeProducts(irreps, 3, wanted).double()
    x = torch.randn(5, module.factors.dim, dtype=torch.float64)
    found = to_mul_ir(module.multiplied(to_ir_mul(x, shape(module.factors))), shape(module.irreps_products))
    columns = module.irreps_products.slices()
    for (mul, ir), place in zip(module.irreps_products, columns, strict=True):
        expected = torch.cat(products(x, module.factors, ir), dim=1)
        assert mul == 3 * expected.shape[1]
        torch.testing.assert_close(found[:, place].reshape(5, -1, 3, ir.dim), expected)


def products(x: torch.Tensor, factors: o3.Irreps, wanted: o3.Irrep) -> list[torch.Tensor]:
    """All that are not zero, each (n, 1, channels, 2l+1)."""
    found = []
    for first in range(len(factors)):
        for second in range(first, len(factors)):
            if wanted not in factors[first].ir * factors[second].ir:
                continue
            mul = factors[first].mul
            product = o3.TensorProduct(
                factors, factors, f"{mul}x{wanted}", [(first, second, 0, "uuu", False)], irrep_normalization="component"
            ).double()
            value = product(x, x)
            if value.abs().max() > 1e-9:
                found.append(value.reshape(len(x), 1, mul, wanted.dim))
    return found


def test_rotation_and_inversion():
    torch.manual_seed(0)
    irreps_in, irreps_out = o3.Irreps("2x0e+3x1o+4x1o+2x2e+2x1e"), o3.Irreps("3x0e+2x0o+3x1o+2x1e+1x2e+2x2o")
    out = assert_equivariant(NodeProducts(irreps_in, 3, irreps_out).double(), irreps_in, irreps_out)
    assert out.abs().sum(0).min() > 1e-3


def test_coefficients_stay_exact_when_the_module_is_cast():
    module = NodeProducts("2x0e+2x1o+2x2e", 2, "0e+1o+2e")
    exact = module.coefficients.clone()
    assert torch.equal(module.float().double().coefficients, exact)
    assert module.float()(torch.randn(3, 18)).dtype == torch.float32
