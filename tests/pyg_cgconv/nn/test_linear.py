import copy

import pytest
import torch
from e3nn import o3
from torch.profiler import ProfilerActivity, profile

from pyg_cgconv.nn import Gate, Linear, RadialNetwork, SpeciesLinear
from pyg_cgconv.nn._linear import FUSED_NODES
from pyg_cgconv.nn._species import FEW, Grouped
from pyg_cgconv.tensor_product import Rows, times
from tests import e3nn_layers
from tests.rotations import assert_equivariant, in_layout, in_mul_ir

IN, OUT = o3.Irreps("5x0e+3x1o+2x0e+4x1o+1x2e"), o3.Irreps("6x0e+2x1o+3x2e+2x1e")


@pytest.fixture(params=["mul_ir", "ir_mul"])
def layout(request) -> str:
    return request.param


def test_linear_equals_e3nn(layout):
    layer, x = Linear(IN, OUT, layout=layout).double(), torch.randn(7, IN.dim, dtype=torch.float64)
    out = in_mul_ir(layer(in_layout(x, IN, layout)), OUT, layout)
    torch.testing.assert_close(out, e3nn_layers.linear(layer)(x))


@pytest.mark.cuda
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
def test_fused_linear_is_the_other_one_with_its_derivatives(irreps_in, irreps_out, n, dtype, layout):
    torch.manual_seed(0)
    layer = Linear(irreps_in, irreps_out, layout=layout, fused=True).cuda().to(dtype)
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
def test_linear_refuses_other_shapes(shape, fused, device, layout):
    layer = Linear("4x0e+12x1o", "4x0e+4x1o", layout=layout, fused=fused).to(device)
    with pytest.raises(ValueError, match=rf"^x: expected shape \(n, 40\), features 4x0e\+12x1o, got \({shape[0]},"):
        layer(torch.zeros(shape, device=device))


def test_species_linear_and_gate_refuse_other_shapes(layout):
    with pytest.raises(ValueError, match=r"^x: expected shape \(n, 8\), features 2x0e\+2x1o, got \(3, 9\)"):
        SpeciesLinear("2x0e+2x1o", "2x1o", 2, layout=layout)(torch.zeros(3, 9), torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"^x: expected shape \(n, 10\), features 4x0e\+2x1o, got \(3, 8\)"):
        Gate("2x0e+2x1o", layout=layout)(torch.zeros(3, 8))


def test_linear_leaves_zero_where_the_input_lacks_an_irrep():
    out = Linear("3x0e", "2x0e+2x1o")(torch.randn(5, 3))
    assert (out[:, :2] != 0).all()
    assert (out[:, 2:] == 0).all()


def test_linear_keeps_the_variance():
    torch.manual_seed(0)
    out = Linear("100x0e+100x0e", "500x0e")(torch.randn(200, 200))
    assert 0.8 < out.square().mean() < 1.2


def test_species_linear_is_a_linear_layer_a_species(layout):
    irreps_in, irreps_out, species = o3.Irreps("4x0e+3x1o"), o3.Irreps("2x0e+5x1o+1x2e"), torch.tensor([2, 0, 1, 1, 0])
    layer = SpeciesLinear(irreps_in, irreps_out, 3, layout=layout).double()
    x = torch.randn(5, irreps_in.dim, dtype=torch.float64)
    out = layer(x, torch.nn.functional.one_hot(species, 3).double())
    assert torch.equal(layer(x, species), out)
    for s in range(3):
        single = Linear(irreps_in, irreps_out, layout=layout).double()
        for ours, of_all, (mul, _) in zip(single.weights, layer.linear.weights, irreps_in, strict=False):
            ours.data = of_all.data.unflatten(0, (3, mul))[s]
        torch.testing.assert_close(out[species == s], single(x[species == s]))


def test_species_linear_equals_e3nn(layout):
    irreps_in, irreps_out = o3.Irreps("4x0e+2x1e+3x1o+2x2e"), o3.Irreps("2x0e+5x1o+3x2e+1x3o")
    layer = SpeciesLinear(irreps_in, irreps_out, 3, layout=layout).double()
    x = torch.randn(5, irreps_in.dim, dtype=torch.float64)
    one_hot = torch.nn.functional.one_hot(torch.tensor([2, 0, 1, 1, 0]), 3).double()
    expected = e3nn_layers.species_linear(layer)(x, one_hot * 3**0.5)
    torch.testing.assert_close(in_mul_ir(layer(in_layout(x, irreps_in, layout), one_hot), irreps_out, layout), expected)


@pytest.mark.parametrize("irreps", ["4x0e+3x0o+2x1o+3x2e", "4x0e+2x1e+1x1o", "3x0o+2x1o"])
def test_gate_equals_e3nn(irreps, layout):
    gate = Gate(irreps, layout=layout)
    x = torch.randn(6, gate.irreps_in.dim, dtype=torch.float64)
    out = in_mul_ir(gate(in_layout(x, gate.irreps_in, layout)), gate.irreps_out, layout)
    torch.testing.assert_close(out, e3nn_layers.gate(gate, x))


def test_gates_that_earlier_versions_have_saved():
    gate, saved = Gate("2x0e+3x1o"), Gate("2x0e+3x1o")
    for attribute in ("fused", "_units"):
        del saved.__dict__[attribute]
    x = torch.randn(4, gate.irreps_in.dim)
    torch.testing.assert_close(copy.deepcopy(saved)(x), gate(x))


@pytest.mark.parametrize("irreps", ["8x0e", "8x0e+4x0o", "2x0e+3x1o+3x1e+1x2e"])
@pytest.mark.parametrize(
    "make", [Gate, lambda irreps, layout: Linear("2x0e+1x0o+2x1o+1x1e+3x2e+1x0e", irreps, layout=layout)]
)
def test_equivariance(irreps, make, layout):
    layer = make(irreps, layout=layout).double()
    assert_equivariant(layer, layer.irreps_in, layer.irreps_out)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layer", "irreps"),
    [(Linear, ("4x0e+2x1o+3x1o", "3x0e+2x1o+1x2e")), (SpeciesLinear, ("4x0e+2x1o", "2x1o", 5)), (Gate, ("2x0e+3x1o",))],
)
def test_torch_compile_traces_the_layer(layer, irreps, layout):
    layer = layer(*irreps, layout=layout).double()
    inputs = [torch.randn(5, layer.irreps_in.dim, dtype=torch.float64), torch.eye(5, dtype=torch.float64)]
    inputs = inputs if isinstance(layer, SpeciesLinear) else inputs[:1]
    torch.testing.assert_close(torch.compile(layer, backend="aot_eager", fullgraph=True)(*inputs), layer(*inputs))


def test_irreps_in_two_slots_are_refused():
    with pytest.raises(ValueError, match="each irrep once"):
        Gate("2x0e+1x1o+3x0e")
    with pytest.raises(ValueError, match="each irrep once"):
        Linear("2x0e", "2x0e+2x0e")


def test_species_linear_without_a_common_irrep_is_refused():
    with pytest.raises(ValueError, match=r"^irreps_out:"):
        SpeciesLinear("2x0e", "2x1o", 3)


def test_no_nodes(layout):
    assert Linear(IN, OUT, layout=layout)(torch.zeros(0, IN.dim)).shape == (0, OUT.dim)
    assert SpeciesLinear(OUT, OUT, 2, layout=layout)(torch.zeros(0, OUT.dim), torch.zeros(0, 2)).shape == (0, OUT.dim)
    gate = Gate(OUT, layout=layout)
    assert gate(torch.zeros(0, gate.irreps_in.dim)).shape == (0, OUT.dim)


@pytest.mark.parametrize(
    "species", [torch.arange(4), torch.ones(3).bool(), torch.eye(3).long(), torch.eye(3, 4), torch.eye(2, 3)]
)
def test_what_is_no_species_is_named(species):
    words = r"^species: expected numbers \(3,\) from 0 to 2, or one-hot rows \(3, 3\) in the dtype of the features, got"
    with pytest.raises(ValueError, match=words):
        SpeciesLinear("2x0e", "2x0e", 3)(torch.randn(3, 2), species)
    with pytest.raises(ValueError, match=r"^species: expected numbers from 0 to 2, got -1 to 3"):
        SpeciesLinear("2x0e", "2x0e", 3)(torch.randn(3, 2), torch.tensor([-1, 3, 0]))
    with pytest.raises(TypeError, match=r"^species: expected numbers \(3,\) below 3, got NoneType"):
        SpeciesLinear("2x0e", "2x0e", 3)(torch.randn(3, 2), None)


@pytest.mark.parametrize("count", [FEW + 1, 40])
@pytest.mark.parametrize("nodes", [1, 16, 17, 70, 200])
def test_many_species_by_number_equal_one_hot_ones(count, nodes, layout, device):
    """In all derivatives, also of second order; the other way of asking multiplies by one-hot rows."""
    torch.manual_seed(nodes)
    layer = SpeciesLinear("4x0e+3x1o", "2x0e+5x1o+1x2e", count, layout=layout).double().to(device)
    species = (torch.randint(count, (nodes,)) // (1 + nodes % 3)).to(device)
    x = torch.randn(nodes, 13, dtype=torch.float64, device=device, requires_grad=True)
    results = []
    for given in (species, torch.nn.functional.one_hot(species, count).double()):
        out = layer(x, given)
        first = torch.autograd.grad(out.sin().sum(), (x, *layer.parameters()), create_graph=True, allow_unused=True)
        first = [g for g in first if g is not None]
        second = torch.autograd.grad(sum(g.square().sum() for g in first), (x, *layer.parameters()), allow_unused=True)
        results.append([out, *first, *(g for g in second if g is not None)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.slow
def test_many_species_under_transforms(layout):
    layer = SpeciesLinear("4x0e+3x1o", "2x0e+5x1o", 30, layout=layout).double()
    species, x = torch.randint(30, (9,)), torch.randn(9, 13, dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda x: layer(x, species))(x)
    torch.testing.assert_close(torch.einsum("nkmj,mj->nk", jacobian, x), layer(x, species))
    many = torch.func.vmap(lambda x: layer(x, species))(torch.stack([x, 2 * x]))
    with pytest.raises(ValueError, match=r"^species: torch\.vmap over graphs has no kernel"):
        torch.func.vmap(lambda species: layer(x, species))(species.expand(2, -1))
    torch.testing.assert_close(many, torch.stack([layer(x, species), 2 * layer(x, species)]))
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=True)
    for nodes in (9, 4):
        torch.testing.assert_close(compiled(x[:nodes], species[:nodes]), layer(x[:nodes], species[:nodes]))


@pytest.mark.slow
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "layer",
    [
        SpeciesLinear("4x0e+3x1o", "2x0e+1x2e", FEW),
        SpeciesLinear("4x0e+3x1o", "2x0e+1x2e", 30),
        RadialNetwork(13, (4,), 5, FEW),
        RadialNetwork(13, (4,), 5, 30),
    ],
)
def test_an_exported_program_takes_any_number_of_nodes(layer, strict):
    nodes = {0: torch.export.Dim("nodes", min=2, max=1000)}
    x, species = torch.randn(70, 13), torch.randint(FEW, (70,))
    exported = torch.export.export(layer, (x[:5], species[:5]), dynamic_shapes=(nodes, nodes), strict=strict)
    torch.testing.assert_close(exported.module()(x, species), layer(x, species))


def test_many_species_of_no_nodes(layout):
    layer = SpeciesLinear(OUT, OUT, 20, layout=layout)
    assert layer(torch.zeros(0, OUT.dim), torch.zeros(0, dtype=torch.int64)).shape == (0, OUT.dim)


def test_nodes_that_are_groups_by_themselves(layout):
    """As a GPU has them that does not know which of many species occur."""
    layer = SpeciesLinear("4x0e+3x1o", "2x0e+5x1o+1x2e", 20, layout=layout).double()
    species, x, each = torch.tensor([3, 19, 3, 0, 7]), torch.randn(5, 13, dtype=torch.float64), torch.arange(5)
    alone = Grouped(species, each, each, species)
    torch.testing.assert_close(layer(x, alone), layer(x, species))


@pytest.mark.parametrize("dim", [1, 3])
@pytest.mark.parametrize("with_gradients", [False, True])
def test_blocks_times_a_matrix_are_one_product(dim, layout, with_gradients):
    """Rows of a block lie apart, as other blocks are between them."""
    block = Rows(o3.Irreps(f"4x0e+4x{dim // 2}e+2x1o"), layout).split(torch.randn(6, 10 + 4 * dim).double())[1]
    matrix = torch.randn(4, 5).double().requires_grad_(with_gradients)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        found = times(block, matrix)
    torch.testing.assert_close(found, torch.einsum("ndu,uw->ndw", block, matrix))
    names = {event.name for event in profiler.events()}
    assert "aten::mm" in names
    assert "aten::bmm" not in names
