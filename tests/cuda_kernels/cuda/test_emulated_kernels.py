"""The CUDA kernels, launched as on a GPU but run by the PTX machine, against e3nn in float64."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from e3nn import o3

pytest.importorskip("numba_cuda", reason="the CUDA kernels' compiler is not installed")

from cuda_kernels.cuda import powers
from pyg_cgconv.nn import NodeProducts, SymmetricContraction, TensorProduct
from pyg_cgconv.ops import contract
from pyg_cgconv.tensor_product import describe, problem_of
from tests.emulated import HOPPER, emulated_gpu, folded
from tests.problems import Case, error, fill
from tests.pyg_cgconv.ops.test_derivatives import compare
from tests.rotations import float64

pytestmark = pytest.mark.slow
thorough = pytest.mark.thorough

# Source, target: of five targets one has no edges, one has most of them; one of four sources has no edges.
EDGES = [(0, 1), (2, 4), (1, 4), (0, 4), (0, 0), (1, 4), (2, 3), (2, 4), (0, 4), (1, 3), (2, 4), (0, 4), (1, 4), (2, 0)]
SOURCES, TARGETS = 4, 5


def case(irreps_in, irreps_edge, irreps_out, paths, layout="ir_mul", shared_weights=False, edges=EDGES) -> Case:
    """A convolution of these paths, (input, edge feature, output, has weights), on the small graph."""
    irreps = map(o3.Irreps, (irreps_in, irreps_edge, irreps_out))
    instructions = [(x, y, out, "uvu", weighted) for x, y, out, weighted in paths]
    result = Case(*irreps, instructions, layout, shared_weights, *[None] * 4, targets=TARGETS)
    fill(result, SOURCES, len(edges), seed=0)
    result.edge_index = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T
    return result


def vectors(channels: int, **options) -> Case:
    """Scalars and vectors; paths share outputs, one has no weights, one output no path."""
    irreps = f"{channels}x0e+{channels}x1o"
    paths = [(0, 0, 1, True), (1, 1, 1, False), (0, 1, 2, True), (1, 0, 2, True)]
    return case(irreps, "0e+1o", f"3x1e+{irreps}", paths, **options)


def scalars(channels: int, **options) -> Case:
    return case(f"{channels}x0e", "0e", f"{channels}x0e", [(0, 0, 0, True)], **options)


def check(problem: Case, dtype: torch.dtype, **options) -> list[tuple[int, int, int]]:
    """The output, its derivatives and theirs, of the kernels and of e3nn; returns the grids of what was launched."""
    with emulated_gpu(**options) as grids:
        compare(problem, torch.device("cpu"), dtype)
    return grids


@pytest.mark.parametrize(
    ("channels", "layout", "dtype", "capability"),
    [
        (5, "mul_ir", torch.float64, HOPPER),
        pytest.param(32, "ir_mul", torch.float32, HOPPER, marks=thorough),
        (64, "mul_ir", torch.float32, HOPPER),
        pytest.param(96, "ir_mul", torch.float64, (8, 6), marks=thorough),  # whose memory has room for fewer stages
    ],
    ids=str,
)
def test_every_order_of_derivative(channels, layout, dtype, capability):
    check(vectors(channels, layout=layout), dtype, capability=capability)


@pytest.mark.parametrize(
    ("deterministic", "row_edges"),
    [(False, None), (True, 3), *[pytest.param(d, n, marks=thorough) for d, n in ((False, 1), (False, 3), (True, 1))]],
)
def test_nodes_of_many_edges_are_cut_into_rows(deterministic, row_edges):
    grids = check(vectors(64, layout="mul_ir"), torch.float32, deterministic=deterministic, row_edges=row_edges)
    passes, folded_outputs = (4, 4) if deterministic else (3, 2)
    assert len(grids) == passes + (folded_outputs if row_edges else 0)


@pytest.mark.parametrize("deterministic", [False, pytest.param(True, marks=thorough)])
def test_passes_are_cut_into_segments(deterministic):
    """The second one adds to the rows of nodes and edges that the first one wrote."""
    paths = [(0, 0, 0, True), (0, 1, 0, True)]
    problem = case("32x1e", "0e+1e", "32x1e", paths)
    grids = check(problem, torch.float64, registers=64, deterministic=deterministic)
    assert len(grids) == 2 * (4 if deterministic else 3)


@thorough
def test_multiplicities_are_segments_of_their_own():
    irreps, edge = "33x0e+5x1o", "2x0e+1x1o"
    paths = [(0, 0, 0, True), (0, 1, 2, True), (1, 0, 1, True)]
    check(case(irreps, edge, f"{irreps}+33x1o", paths, layout="mul_ir"), torch.float32)


@thorough
def test_inputs_of_nodes_wait_in_shared_memory():
    paths = [(0, 0, 0, True), (0, 0, 1, True)]
    check(case("32x6e", "1o", "32x5o+32x6o", paths), torch.float32, registers=185)


@thorough
def test_gradients_of_more_edge_features_than_lanes():
    check(case("32x0e", "33x0e+0e", "32x0e", [(0, 1, 0, True)]), torch.float32)


@thorough
@pytest.mark.parametrize("row_edges", [None, 3])
def test_warps_go_round_where_channels_are_many(row_edges):
    check(scalars(320), torch.float32, row_edges=row_edges)


@thorough
def test_inputs_that_are_not_aligned():
    check(vectors(32), torch.float32, misaligned=8)


def test_shared_weights():
    check(scalars(7, shared_weights=True), torch.float64)


@pytest.mark.parametrize("row_edges", [None, 3])
def test_graphs_without_edges(row_edges):
    check(vectors(5, layout="mul_ir", edges=[]), torch.float64, row_edges=row_edges)


@pytest.mark.parametrize(("deterministic", "row_edges"), [(False, 3), pytest.param(True, None, marks=thorough)])
def test_modes_with_channels_on_the_edge(deterministic, row_edges):
    """Of scalars and vectors, and of pairs of their channels, which lie in ir_mul."""
    irreps, paths = "5x0e+5x1o", [(0, 1, 1, "uuu", True), (1, 1, 0, "uuu", False), (1, 0, 2, "u<vw", True)]
    result = Case(*map(o3.Irreps, (irreps, irreps, f"{irreps}+2x1o")), paths, "mul_ir", True, *[None] * 4, TARGETS)
    fill(result, SOURCES, len(EDGES), seed=0)
    result.edge_index = torch.tensor(EDGES).T
    check(result, torch.float64, deterministic=deterministic, row_edges=row_edges)


@thorough
def test_channels_of_the_second_factor():
    torch.manual_seed(0)
    with float64():
        arguments = "2x0e+1x1o", "33x0e", "33x0e+33x1o", [(0, 0, 0, "uvv", True), (1, 0, 1, "uvv", True)]
        product, reference = TensorProduct(*arguments), o3.TensorProduct(*arguments)
        inputs = torch.randn(4, 5), torch.randn(4, 33), torch.randn(product.weight_numel)
    g = torch.randn(4, product.irreps_out.dim, dtype=torch.float64)
    with emulated_gpu(walks=2):
        found = torch.autograd.functional.vjp(product, inputs, g)
    torch.testing.assert_close(found, torch.autograd.functional.vjp(reference, inputs, g))


def test_products_of_features():
    torch.manual_seed(0)
    fused, reference = (NodeProducts("5x0e+5x1o", 5, "5x0e+5x1o", fused=f).double() for f in (True, False))
    x, g = (torch.randn(4, irreps.dim, dtype=torch.float64) for irreps in (fused.factors, fused.irreps_products))
    with emulated_gpu(deterministic=True):
        found = torch.autograd.functional.vjp(fused.multiplied, x, g)
    torch.testing.assert_close(found, torch.autograd.functional.vjp(reference.multiplied, x, g))


@pytest.mark.parametrize(
    ("layout", "row_nodes", "coefficients"), [("ir_mul", 2, 6), pytest.param("mul_joined", None, 96, marks=thorough)]
)
def test_polynomials(layout, row_nodes, coefficients):
    """Chunks of few coefficients; an element of many rows, one of one, and one without nodes."""
    fused, reference = (
        SymmetricContraction("5x0e+5x1o", "5x0e+5x1o", 3, 4, layout=layout, backend=backend).double()
        for backend in ("auto", "reference")
    )
    reference.load_state_dict(fused.state_dict())
    element = torch.tensor([0] * 9 + [3, 2] + [0] * 8 + [2] * 5)
    torch.manual_seed(0)
    inputs = tuple(torch.randn(len(element), 20, dtype=torch.float64).requires_grad_() for _ in range(3))

    def derivatives(layer):
        x, g, a = inputs
        y = layer(x, element)
        first = torch.autograd.grad(y, (x, layer.weight), g, create_graph=True)
        return y, *first, *torch.autograd.grad((first[0] * a).sum() + first[1].sin().sum(), (x, g, layer.weight))

    shapes = {name: getattr(powers, name)._replace(coefficients=coefficients) for name in ("OUTPUTS", "BY_FEATURES")}
    with patch.multiple(powers, **shapes), emulated_gpu(row_edges=row_nodes) as grids:
        found = derivatives(fused)
    assert len(grids) == (7 if row_nodes else 5)  # two of which fold
    torch.testing.assert_close(found, derivatives(reference), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("unused", "together", "window"), [(0, 1, 1), (4, 1, 5), (4, 3, 1), (0, 3, 32), (4, 1, 32)])
def test_partial_rows_are_added_to_their_nodes(unused, together, window, dtype):
    random, nodes, length = np.random.default_rng(0), 6, 45
    continuing = np.array([1] * 19 + [2] + [4] * 8 + [5] * 9 + [nodes] * unused, np.int32)
    rows, partials = (random.normal(size=(n, length)).astype(dtype) for n in (nodes, len(continuing)))
    row = np.arange(len(continuing)) + continuing + 1  # of all; those that others were walked with have no partial row
    used = (continuing < nodes) & (row % together == 0)
    partials[~used] = np.nan
    expected = rows.astype(np.float64)
    np.add.at(expected, continuing[used], partials[used])
    found = folded(rows, partials, continuing, together, window)
    np.testing.assert_allclose(found, expected, rtol=1e-5 if dtype == "float32" else 1e-13)


@thorough
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_maps(dtype):
    """Slots wider than a tile, an output of two inputs, an input that is not read, an output without input."""
    irreps = o3.Irreps("36x0e+8x1o+44x1o+4x2e+4x3o"), o3.Irreps("40x0e+36x1o+8x2e+4x4e")
    description, generator = describe.linear(*irreps), torch.Generator().manual_seed(0)
    lengths = {operand.name: operand.row.length for operand in problem_of(description, "float64").operands}
    x, g, w = (
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        for shape in ((37, lengths["x"]), (37, lengths["g"]), (lengths["w"],))
    )

    def derivatives(dtype):
        inputs = [t.to(dtype, copy=True).requires_grad_() for t in (x, w, g)]
        out = contract(description, inputs[:2])
        first = torch.autograd.grad(out, inputs[:2], inputs[2], create_graph=True)
        tangents = [torch.ones_like(t) for t in first]
        return [out, *first, *torch.autograd.grad(first, inputs, tangents)]

    with emulated_gpu() as grids:
        found = derivatives(dtype)
    assert len(grids) == 1 + 2 + 4, "one for each product of two operands"
    for result, expected in zip(found, derivatives(torch.float64), strict=True):
        assert error(result, expected) < (1e-6 if dtype == torch.float32 else 1e-14)
