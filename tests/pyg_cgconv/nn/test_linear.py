import copy

import pytest
import torch
from e3nn import nn as e3nn_nn
from e3nn import o3

from pyg_cgconv.nn import Gate, Linear, SpeciesLinear
from pyg_cgconv.nn._linear import FUSED_NODES
from pyg_cgconv.tensor_product import shape, to_ir_mul, to_mul_ir
from tests.rotations import assert_equivariant

IN, OUT = o3.Irreps("5x0e+3x1o+2x0e+4x1o+1x2e"), o3.Irreps("6x0e+2x1o+3x2e")


def test_linear_equals_e3nn():
    layer, x = Linear(IN, OUT).double(), torch.randn(7, IN.dim, dtype=torch.float64)
    theirs = o3.Linear(IN, OUT).double()
    with torch.no_grad():
        for instruction, weight in zip(theirs.instructions, theirs.weight_views(), strict=True):
            out = instruction.i_out
            rows = [IN[k].mul for k in layer.slots[out]]
            start = sum(rows[: layer.slots[out].index(instruction.i_in)])
            weight.copy_(layer.weights[out][start : start + weight.shape[0]])
    expected = to_ir_mul(theirs(to_mul_ir(x, shape(IN))), shape(OUT))
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-6)  # e3nn keeps its path weights in float32


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(
    ("irreps_in", "irreps_out", "n"),
    [
        (IN, OUT, 7),  # by matrix products
        ("4x0e", "8x0e+4x1o", 40),
        ("4x0e+8x1o", "8x0e+4x1o", 0),
        ("132x0e+36x1o+64x1o+8x3o", "64x0e+128x1o+40x3o+4x2e", 333),
        ("4x0e", "8x0e+4x1o", FUSED_NODES + 1),  # by matrix products
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fused_linear_is_the_other_one_with_its_derivatives(irreps_in, irreps_out, n, dtype):
    torch.manual_seed(0)
    layer = Linear(irreps_in, irreps_out, fused=True).cuda().to(dtype)
    other = copy.deepcopy(layer).double()
    other._description = None
    x = torch.randn(n, layer.irreps_in.dim, dtype=dtype, device="cuda")
    v, g = torch.randn_like(x), torch.randn(n, layer.irreps_out.dim, dtype=dtype, device="cuda")

    def derivatives(layer, x, v, g):
        x = x.clone().requires_grad_()
        y = layer(x)
        first = torch.autograd.grad((y.sin() * g).sum(), [x, *layer.weights], create_graph=True)
        second = torch.autograd.grad((first[0] * v).sum() + first[1].square().sum(), [x, *layer.weights])
        return y, *first, *second

    found = derivatives(layer, x, v, g)
    for one, expected in zip(found, derivatives(other, x.double(), v.double(), g.double()), strict=True):
        assert one.dtype == dtype
        scale = max([1.0, *expected.abs().flatten().tolist()])
        torch.testing.assert_close(
            one.double() / scale, expected / scale, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-12
        )


@pytest.mark.parametrize("shape", [(3, 7), (40,), (3, 2, 40)])
@pytest.mark.parametrize("fused", [False, True])
def test_linear_refuses_other_shapes(shape, fused, device):
    layer = Linear("4x0e+12x1o", "4x0e+4x1o", fused=fused).to(device)
    with pytest.raises(ValueError, match=rf"^x: expected shape \(n, 40\), features 4x0e\+12x1o, got \({shape[0]},"):
        layer(torch.zeros(shape, device=device))


def test_linear_leaves_zero_where_the_input_lacks_an_irrep():
    out = Linear("3x0e", "2x0e+2x1o")(torch.randn(5, 3))
    assert (out[:, :2] != 0).all()
    assert (out[:, 2:] == 0).all()


def test_linear_keeps_the_variance():
    torch.manual_seed(0)
    out = Linear("100x0e+100x0e", "500x0e")(torch.randn(200, 200))
    assert 0.8 < out.square().mean() < 1.2


def test_species_linear_is_a_linear_layer_a_species():
    irreps_in, irreps_out, species = o3.Irreps("4x0e+3x1o"), o3.Irreps("2x0e+5x1o+1x2e"), torch.tensor([2, 0, 1, 1, 0])
    layer = SpeciesLinear(irreps_in, irreps_out, 3).double()
    x = torch.randn(5, irreps_in.dim, dtype=torch.float64)
    out = layer(x, torch.nn.functional.one_hot(species, 3).double())
    for s in range(3):
        single = Linear(irreps_in, irreps_out).double()
        for ours, of_all, (mul, _) in zip(single.weights, layer.linear.weights, irreps_in, strict=False):
            ours.data = of_all.data.unflatten(0, (3, mul))[s]
        torch.testing.assert_close(out[species == s], single(x[species == s]))


def test_gate_equals_e3nn():
    irreps = o3.Irreps("4x0e+3x0o+2x1o+3x2e")
    gate = Gate(irreps)
    theirs = e3nn_nn.Gate(
        "4x0e+3x0o", [torch.nn.functional.silu, torch.tanh], "5x0e", [torch.nn.functional.silu], "2x1o+3x2e"
    )
    assert gate.irreps_in.dim == theirs.irreps_in.dim
    x = torch.randn(6, gate.irreps_in.dim)
    even, odd, vectors, tensors = to_mul_ir(x, shape(gate.irreps_in)).split([9, 3, 6, 15], dim=1)
    slots = {"9x0e": even, "3x0o": odd, "2x1o": vectors, "3x2e": tensors}
    expected = theirs(torch.cat([slots[str(slot)] for slot in theirs.irreps_in], dim=1))
    # e3nn estimates the normalisation of activations by sampling
    torch.testing.assert_close(to_mul_ir(gate(x), shape(irreps)), expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("irreps", ["8x0e", "8x0e+4x0o", "2x0e+3x1o+3x1e+1x2e"])
@pytest.mark.parametrize("make", [Gate, lambda irreps: Linear("2x0e+1x0o+2x1o+1x1e+3x2e+1x0e", irreps)])
def test_equivariance(irreps, make):
    layer = make(irreps).double()
    assert_equivariant(layer, layer.irreps_in, layer.irreps_out)


def test_irreps_in_two_slots_are_refused():
    with pytest.raises(ValueError, match="each irrep once"):
        Gate("2x0e+1x1o+3x0e")
    with pytest.raises(ValueError, match="each irrep once"):
        Linear("2x0e", "2x0e+2x0e")


def test_species_linear_without_a_common_irrep_is_refused():
    with pytest.raises(ValueError, match=r"^irreps_out:"):
        SpeciesLinear("2x0e", "2x1o", 3)


def test_no_nodes():
    assert Linear(IN, OUT)(torch.zeros(0, IN.dim)).shape == (0, OUT.dim)
    gate = Gate(OUT)
    assert gate(torch.zeros(0, gate.irreps_in.dim)).shape == (0, OUT.dim)
