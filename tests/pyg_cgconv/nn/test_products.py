"""Products against e3nn's, one tensor product of mode "uuu" with two equal factors for each."""

import copy
import pickle

import pytest
import torch
from e3nn import o3
from torch.autograd import grad, gradcheck, gradgradcheck

from cuda_kernels.contraction import backward, double_backward, forward
from pyg_cgconv.nn import NodeProducts
from pyg_cgconv.tensor_product import problem_of, shape, to_ir_mul, to_mul_ir
from tests import e3nn_layers
from tests.rotations import assert_equivariant, in_layout, in_mul_ir

PROBLEMS = [
    ("4x0e+4x1o+4x2e", "4x0e+2x1o+3x2e"),
    pytest.param("2x0e+2x1o+2x2e+2x3o", "0e+1o+2e+3o", marks=pytest.mark.slow),
    ("2x0o+2x0e+2x1o+2x1e", "5x0e+0o+1o+1e"),
    ("3x1o", "0e+1o"),  # the cross product of a vector with itself is zero
]


@pytest.mark.slow
@pytest.mark.parametrize(("irreps", "wanted"), PROBLEMS)
def test_products_are_those_of_e3nn(device, irreps, wanted):
    torch.manual_seed(0)
    module = NodeProducts(irreps, 2, wanted).double()
    x = torch.randn(5, module.factors.dim, dtype=torch.float64)
    found = module.multiplied(to_ir_mul(x, shape(module.factors)).to(device)).cpu()
    expected = torch.cat([products(x, module.factors, ir) for _, ir in o3.Irreps(wanted)], dim=1)
    torch.testing.assert_close(to_mul_ir(found, shape(module.irreps_products)), expected)


@pytest.mark.parametrize("layout", ["mul_ir", "ir_mul"])
@pytest.mark.parametrize(("irreps", "wanted"), PROBLEMS)
def test_products_between_linear_maps_are_those_of_e3nn(device, irreps, wanted, layout):
    torch.manual_seed(0)
    module = NodeProducts(irreps, 3, wanted, layout=layout).double()
    x = torch.randn(5, module.irreps_in.dim, dtype=torch.float64)
    linear_in, linear_out = map(e3nn_layers.linear, (module.linear_in, module.linear_out))
    factors = linear_in(x)
    expected = linear_out(torch.cat([products(factors, module.factors, ir) for _, ir in o3.Irreps(wanted)], dim=1))
    found = module.to(device)(in_layout(x, module.irreps_in, layout).to(device)).cpu()
    torch.testing.assert_close(in_mul_ir(found, module.irreps_out, layout), expected)


def products(x: torch.Tensor, factors: o3.Irreps, wanted: o3.Irrep) -> torch.Tensor:
    """All that are not zero, each (n, channels * (2l+1)), side by side."""
    found = [x[:, :0]]
    for first in range(len(factors)):
        for second in range(first, len(factors)):
            if wanted not in factors[first].ir * factors[second].ir:
                continue
            slot = f"{factors[first].mul}x{wanted}"
            product = o3.TensorProduct(factors, factors, slot, [(first, second, 0, "uuu", False)]).double()
            value = product(x, x)
            if value.abs().max() > 1e-9:
                found.append(value)
    return torch.cat(found, dim=1)


@pytest.mark.slow
def test_derivatives_are_those_of_the_reference(device):
    torch.manual_seed(0)
    irreps = "5x0e+5x1o+5x2e"
    fused, reference = (NodeProducts(irreps, 5, "0e+1o+2e", fused=fused) for fused in (True, False))
    x = torch.randn(4, fused.factors.dim, dtype=torch.float64, device=device, requires_grad=True)
    v = torch.randn_like(x)

    def derivatives(module):
        y = module.multiplied(x)
        (first,) = grad(y.square().sum(), x, create_graph=True)
        (second,) = grad((first * v).sum(), x, create_graph=True)
        return y, first, second, *grad(second.sin().sum(), x)

    for found, expected in zip(derivatives(fused), derivatives(reference), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.slow
def test_derivatives_are_those_of_finite_differences():
    torch.manual_seed(0)
    module = NodeProducts("2x0e+2x1o", 2, "0e+1o+2e")
    x = torch.randn(2, module.factors.dim, dtype=torch.float64, requires_grad=True)
    assert gradcheck(module.multiplied, x)
    assert gradgradcheck(module.multiplied, x)


def test_many_channels_of_many_nodes_in_single_precision(device):
    torch.manual_seed(0)
    module = NodeProducts("72x0e+72x1o+72x2e", 72, "0e+1o+2e")
    x = torch.randn(700, module.factors.dim)
    exact = NodeProducts("72x0e+72x1o+72x2e", 72, "0e+1o+2e", fused=False).multiplied(x.double())
    torch.testing.assert_close(module.multiplied(x.to(device)).cpu().double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", ["mul_ir", "ir_mul"])
def test_no_nodes(device, layout):
    module = NodeProducts("2x0e+2x1o", 2, "0e+1o", layout=layout).to(device)
    x = torch.randn(0, 8, device=device, requires_grad=True)
    module(x).sum().backward()
    assert x.grad.shape == (0, 8)


@pytest.mark.slow
@pytest.mark.parametrize("order", [forward, backward, double_backward], ids=lambda order: order.__name__)
def test_the_operation_is_sound(device, order):
    """Shapes of fake tensors, autograd registration and schema, as torch.compile relies on them."""
    module = NodeProducts("2x0e+2x1o", 2, "0e+1o")
    contraction = order(problem_of(module._description, "float32"))
    length = {"x": module.factors.dim, "g": module.irreps_products.dim}
    tensors = [torch.randn(3, length[name[0]], device=device, requires_grad=True) for name in contraction.inputs]
    arguments = module._description, contraction.spec, tensors, None, 0, False
    torch.library.opcheck(torch.ops.pyg_cgconv.contract.default, arguments)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_work(duplicate):
    module = NodeProducts("2x0e+2x1o", 2, "0e+1o")
    x = torch.randn(3, 8)
    assert torch.equal(duplicate(module)(x), module(x))


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["mul_ir", "ir_mul"])
def test_rotation_and_inversion(layout):
    torch.manual_seed(0)
    irreps_in, irreps_out = o3.Irreps("2x0e+3x1o+4x1o+2x2e+2x1e"), o3.Irreps("3x0e+2x0o+3x1o+2x1e+1x2e+2x2o")
    out = assert_equivariant(NodeProducts(irreps_in, 3, irreps_out, layout=layout).double(), irreps_in, irreps_out)
    assert out.abs().sum(0).min() > 1e-3


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"^irreps_out: no product of two of 2x0e is one of 1x1o"):
        NodeProducts("2x0e", 2, "1o")
    with pytest.raises(ValueError, match=r"^x: expected shape \(n, 8\), got \(3, 4\)"):
        NodeProducts("2x0e+2x1o", 2, "0e+1o").multiplied(torch.zeros(3, 4))
    for layout in ("mul_ir", "ir_mul"):
        with pytest.raises(ValueError, match=r"^x: expected shape \(n, 8\), features 2x0e\+2x1o, got \(3, 4\)"):
            NodeProducts("2x0e+2x1o", 2, "0e+1o", layout=layout)(torch.zeros(3, 4))
