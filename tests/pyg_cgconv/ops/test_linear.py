"""Linear maps as a contraction: on a CPU by matrix products, whose derivatives are those of the layer."""

import pytest
import torch
from e3nn import o3
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call

from cuda_kernels.contraction import backward, double_backward, forward
from pyg_cgconv.nn import Linear
from pyg_cgconv.ops import contract
from pyg_cgconv.tensor_product import describe, problem_of
from tests.transforms import TRANSFORMS

IRREPS = o3.Irreps("4x0e+4x1o+8x1o"), o3.Irreps("8x0e+4x1o+4x2e")
MAP = describe.linear(*IRREPS)


def operands(device, n=3):
    torch.manual_seed(0)
    layer = Linear(*IRREPS, layout="ir_mul").double()
    weights = torch.cat([weight.detach().flatten() for weight in layer.weights]).to(device).requires_grad_()
    x = torch.randn(n, layer.irreps_in.dim, dtype=torch.float64, device=device, requires_grad=True)
    return layer.to(device), x, weights


def test_the_map_and_its_derivatives_are_those_of_the_layer(device):
    layer, x, weights = operands(device, n=6)
    found, expected = contract(MAP, (x, weights)), layer(x)
    torch.testing.assert_close(found, expected)
    g = torch.randn_like(found)
    by_x, by_weights = torch.autograd.grad(found, [x, weights], g)
    expected_by_x, *by_each = torch.autograd.grad(expected, [x, *layer.weights], g, allow_unused=True)
    torch.testing.assert_close(by_x, expected_by_x)
    torch.testing.assert_close(by_weights, torch.cat([gradient.flatten() for gradient in by_each]))


@pytest.mark.slow
def test_derivatives_are_those_of_finite_differences(device):
    _, x, weights = operands(device)
    assert gradcheck(lambda x, w: contract(MAP, (x, w)), (x, weights))
    assert gradgradcheck(lambda x, w: contract(MAP, (x, w)), (x, weights))


@pytest.mark.slow
@pytest.mark.parametrize("varied", ["x", "x and weights"])
@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_every_transform(device, name, varied):
    """Against the layer without kernels: a matrix product for each irrep."""
    layer, x, weights = operands(device)
    x, weights, sizes = x.detach(), weights.detach(), [weight.numel() for weight in layer.weights]
    shapes = [weight.shape for weight in layer.weights]

    def unfused(x, w=weights):
        parts = {
            f"weights.{n}": part.view(shape) for n, (part, shape) in enumerate(zip(w.split(sizes), shapes, strict=True))
        }
        return functional_call(layer, parts, (x,))

    inputs = [x, weights] if "weights" in varied else [x]
    changes, cotangent = [torch.randn_like(t) for t in inputs], torch.randn_like(unfused(x))
    results = TRANSFORMS[name](lambda x, w=weights: contract(MAP, (x, w)), inputs, changes, cotangent)
    for result, expected in zip(results, TRANSFORMS[name](unfused, inputs, changes, cotangent), strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("layout", ["mul_ir", "ir_mul"])
def test_the_layer_is_the_map_in_its_layout(layout):
    layer = Linear(*IRREPS, layout=layout, fused=True).double()
    x = torch.randn(6, layer.irreps_in.dim, dtype=torch.float64)
    torch.testing.assert_close(layer._fused(layer._description, x), layer(x))


@pytest.mark.slow
@pytest.mark.parametrize("order", [forward, backward, double_backward], ids=lambda order: order.__name__)
def test_the_operation_is_sound(device, order):
    """Shapes of fake tensors, autograd registration and schema, as torch.compile relies on them."""
    problem = problem_of(MAP, "float64")
    contraction, lengths = order(problem), {o.name: o.row.length for o in problem.operands}
    shapes = [(lengths["w"],) if name[0] == "w" else (3, lengths[name[0]]) for name in contraction.inputs]
    torch.manual_seed(0)
    tensors = [torch.randn(s, dtype=torch.float64, device=device, requires_grad=True) for s in shapes]
    torch.library.opcheck(torch.ops.pyg_cgconv.contract.default, (MAP, contraction.spec, tensors, None, 0, False))
