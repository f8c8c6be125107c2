"""torch.compile and torch.export: few programs serve graphs of all sizes, with the values of what was not compiled."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch_geometric.data import Data

from pyg_cgconv import Edges, Potential, RadiusGraph, TensorProductConv
from pyg_cgconv.nn import spherical_harmonics
from tests.orders import IRREPS

pytestmark = pytest.mark.thorough

LAYERS = {name: TensorProductConv(*IRREPS, aggr=name) for name in ("add", "mean")}
REVERSED = TensorProductConv(*IRREPS, flow="target_to_source")
SIZES = [(5, 3, 12), (7, 4, 20), (9, 11, 31), (4, 6, 40), (30, 2, 17), (6, 6, 6)]
"""Sources, targets, edges."""


def inputs(sources, targets, edges):
    layer = LAYERS["add"]
    ends = torch.stack([torch.randint(nodes, (edges,)) for nodes in (sources, targets)])
    shapes = (sources, layer.irreps_in.dim), (edges, layer.irreps_edge.dim), (edges, layer.weight_numel)
    x, edge_attr, weight = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    return x, ends, edge_attr, weight


def square(sources, edges):
    return inputs(sources, sources, edges)


def called_with_one_tensor(layer, sources, _, edges):
    return layer(*square(sources, edges))


def called_with_a_pair(layer, sources, targets, edges):
    x, ends, *others = inputs(sources, targets, edges)
    return layer((x, None), ends, *others, size=(sources, targets))


def called_with_both_features(layer, sources, targets, edges):
    x, ends, *others = inputs(sources, targets, edges)
    return layer((x, x.new_zeros(targets, 3)), ends, *others)


def called_with_edges(layer, sources, targets, edges):
    x, ends, *others = inputs(sources, targets, edges)
    return layer((x, None), Edges(ends, sources, targets), *others)


def called_with_gradients(layer, sources, _, edges):
    x, ends, *others = square(sources, edges)
    needed = [t.requires_grad_() for t in (x, *others)]
    return torch.cat([t.flatten() for t in torch.autograd.grad(layer(x, ends, *others).square().sum(), needed)])


CALLS = [
    called_with_one_tensor,
    called_with_a_pair,
    called_with_both_features,
    called_with_edges,
    called_with_gradients,
]


@pytest.fixture(autouse=True)
def without_earlier_programs():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("call", "layer"),
    [(call, LAYERS["add"]) for call in CALLS] + [(CALLS[0], LAYERS["mean"]), (CALLS[0], REVERSED)],
)
def test_two_programs_serve_all_sizes(call, layer):
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, fullgraph=True, backend=counter)
    for seed, size in enumerate(SIZES):
        torch.manual_seed(seed)
        found = call(compiled, *size)
        torch.manual_seed(seed)
        torch.testing.assert_close(found, call(layer, *size))
    assert counter.frame_count <= 2


def test_under_autocast():
    layer = LAYERS["add"]
    x, ends, edge_attr, weight = (t.float() if t.is_floating_point() else t for t in square(5, 12))
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = compiled(x, ends, edge_attr, weight.bfloat16())
    torch.testing.assert_close(found, layer(x, ends, edge_attr, weight.bfloat16().float()))


@pytest.mark.parametrize("is_pair", [False, True])
def test_an_exported_layer_serves_all_sizes(is_pair):
    class Convolution(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = LAYERS["add"]

        def forward(self, x, targets, edge_index, edge_attr, weight):
            return self.conv((x, targets) if is_pair else x, edge_index, edge_attr, weight)

    def arguments(sources, targets, edges):
        x, *others = inputs(sources, targets if is_pair else sources, edges)
        return x, x.new_zeros(targets, 1), *others

    nodes, targets, edges = (torch.export.Dim(name, min=2) for name in ("nodes", "targets", "edges"))
    shapes = ({0: nodes}, {0: targets}, {1: edges}, {0: edges}, {0: edges})
    program = torch.export.export(Convolution(), arguments(*SIZES[0]), dynamic_shapes=shapes).module()
    for size in SIZES:
        given = arguments(*size)
        torch.testing.assert_close(program(*given), Convolution()(*given))


def frame(atoms):
    generator = torch.Generator().manual_seed(atoms)
    numbers = torch.tensor([1, 8] * atoms)[:atoms]
    return RadiusGraph(3.0)(Data(z=numbers, pos=3 * torch.rand(atoms, 3, generator=generator)))


class Harmonics(torch.nn.Module):
    """What networks ask for: harmonics of several degrees and dtypes, some of them twice."""

    def forward(self, directions):
        degrees = [spherical_harmonics(directions, lmax) for lmax in (1, 2, 3, 4, 2)]
        return [*degrees, spherical_harmonics(directions.double(), 2)]


def test_one_graph_has_harmonics_of_several_degrees():
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(Harmonics(), fullgraph=True, backend=counter)
    for edges in (5, 7, 3, 11):
        directions = torch.randn(edges, 3, requires_grad=True)
        found, wanted = compiled(directions), Harmonics()(directions)
        torch.testing.assert_close(found, wanted)
        slopes = [torch.autograd.grad(sum(t.square().sum() for t in out), directions) for out in (found, wanted)]
        torch.testing.assert_close(*slopes)
    assert counter.frame_count <= 2


@pytest.mark.parametrize("strict", [False, True])
def test_harmonics_are_exported(strict):
    shapes = ({0: torch.export.Dim("edges", min=2)},)
    program = torch.export.export(Harmonics(), (torch.randn(5, 3),), dynamic_shapes=shapes, strict=strict).module()
    directions = torch.randn(8, 3)
    torch.testing.assert_close(program(directions), Harmonics()(directions))


POTENTIALS = [Potential(["H", "O"], 3.0, channels=4, lmax=lmax, layers=1).eval() for lmax in (1, 3)]


@pytest.mark.parametrize("potential", POTENTIALS, ids=lambda potential: f"lmax {potential.hyperparameters['lmax']}")
def test_the_energy_of_a_potential_is_one_graph(potential):
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(potential, fullgraph=True, backend=counter)
    for atoms in (4, 5, 7, 6):
        found = compiled(frame(atoms), compute_forces=False)
        torch.testing.assert_close(found, potential(frame(atoms), compute_forces=False))
    assert counter.frame_count <= 2


def test_a_compiled_potential_has_forces():
    potential, _ = POTENTIALS
    compiled = torch.compile(potential, backend="aot_eager")
    for atoms in (4, 7):
        torch.testing.assert_close(compiled(frame(atoms)), potential(frame(atoms)), rtol=1e-4, atol=1e-5)
