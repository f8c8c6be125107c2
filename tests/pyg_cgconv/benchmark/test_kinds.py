"""Each kind of problem: what e3nn says of it, and what it counts."""

from functools import partial

import pytest
import torch
from e3nn import o3

from pyg_cgconv.benchmark import graphs, peers, problems
from pyg_cgconv.benchmark.graphs import Graph
from pyg_cgconv.benchmark.kind import Form, Missing
from pyg_cgconv.benchmark.maps import LinearMap, Square
from pyg_cgconv.benchmark.measure import ORDERS, Setting, arranged, measure, random_inputs
from pyg_cgconv.benchmark.problems import kind_of
from pyg_cgconv.tensor_product import shape, to_mul_ir

pytestmark = pytest.mark.slow

CPU = Setting(torch.device("cpu"), torch.float32, bandwidth=1e6, arithmetic=1e6, seconds=0, steps=False)
FLOAT64 = Setting(torch.device("cpu"), torch.float64, bandwidth=1e6, arithmetic=1e6, seconds=0, steps=False)
FORM = Form("mul_ir", torch.float64, torch.device("cpu"))
SMALL = ["nequip-water", "e3tools-conv", "e3tools-transformer", "tetris-poly-2", "linear-nequip", "square-nequip"]


@pytest.fixture
def _float64():
    """e3nn keeps its coefficients at the default dtype of the moment."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def layout_of(problem: str, graph: str) -> str:
    return "ir_mul" if problem.startswith("square") or graph == "molecule" else "mul_ir"


@pytest.mark.thorough
@pytest.mark.parametrize("graph", ["molecule", "rows-1k"])
@pytest.mark.parametrize("problem", SMALL)
def test_this_project_and_e3nn_are_measured(problem, graph):
    for make in (peers.ours, peers.PEERS["e3nn"]):
        row = measure(make, layout_of(problem, graph), problem, graph, CPU)
        assert "missing" not in row
        assert set(row["ms"]) == set(row["floor_ms"]) == set(row["arithmetic_ms"]) == {*ORDERS}
        assert row["error"] < 1e-6


@pytest.mark.parametrize("graph", ["molecule", "rows-1k"])
@pytest.mark.parametrize("problem", SMALL)
@pytest.mark.parametrize("name", ["cuequivariance", "cuequivariance-naive"])
def test_cuequivariance_is_measured(name, problem, graph):
    pytest.importorskip("cuequivariance_torch")
    row = measure(peers.ALL[name], "ir_mul", problem, graph, CPU)
    assert "missing" not in row
    assert row["how"] == "naive"
    assert set(row["ms"]) == {*ORDERS}


@pytest.mark.parametrize("problem", SMALL)
def test_a_missing_openequivariance_says_why(problem):
    with pytest.raises(Missing, match=r"openequivariance has no (CPU kernels|linear map|product of a row with itself)"):
        kind_of(problem, graphs.build("rows-1k")).openequivariance(FORM)


def test_deterministic_means_nothing_without_a_sum():
    with pytest.raises(Missing, match="adds no rows up"):
        kind_of("nequip-water", graphs.build("rows-1k")).openequivariance(FORM, deterministic=True)


@pytest.mark.thorough
def test_e3nn_compiled_has_a_forward_and_a_backward(monkeypatch):
    """Traced and differentiated as by the default backend, whose C++ takes a C++ compiler 20 seconds."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    row = measure(peers.ALL["e3nn-compiled"], "mul_ir", "tetris-poly-2", "molecule", CPU)
    assert set(row["ms"]) == {"forward", "backward"}
    assert "double backward" in row["missing"]


@pytest.mark.parametrize("name", ["diffdock-l1", "diffdock-l2", "tetris-poly-1"])
@pytest.mark.usefixtures("_float64")
def test_a_fully_connected_convolution_is_e3nns_product_of_edges_added_up(name):
    graph = graphs.build("molecule")
    kind = kind_of(name, graph)
    shared = name in problems.SHARED
    irreps = problems.SHARED[name] if shared else problems.FULLY_CONNECTED[name]
    product = o3.FullyConnectedTensorProduct(*irreps, shared_weights=shared, internal_weights=False)
    x, y, w = random_inputs(kind, FLOAT64)
    expected = torch.zeros(graph.nodes, product.irreps_out.dim)
    for edge, (source, target) in enumerate(graph.edge_index.T.tolist()):
        row = slice(edge, edge + 1)
        expected[target] += product(x[[source]], y[row], w if shared else w[row])[0]
    assert torch.allclose(kind.e3nn(FORM).run(x, y, w), expected, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("_float64")
def test_a_channelwise_product_of_rows_is_e3nns():
    kind = kind_of("mace-medium", Graph(7, None))
    irreps = *map(o3.Irreps, problems.PROBLEMS["mace-medium"][:2]), kind.output.irreps
    product = o3.TensorProduct(*irreps, kind.product.instructions, shared_weights=False, internal_weights=False)
    inputs = random_inputs(kind, FLOAT64)
    assert torch.allclose(kind.e3nn(FORM).run(*inputs), product(*inputs), rtol=0, atol=1e-12)


@pytest.mark.parametrize("layout", ["mul_ir", "ir_mul"])
@pytest.mark.parametrize("irreps_in", ["4x0e+8x0e+4x1o", "4x1o+4x0e+8x1o"])
def test_linear_maps_have_e3nns_weights(layout, irreps_in):
    kind = LinearMap(irreps_in, "8x0e+4x1o", Graph(5, None))
    x, w = random_inputs(kind, FLOAT64)
    expected = o3.Linear(irreps_in, "8x0e+4x1o", internal_weights=False, shared_weights=True)(x, w)
    ours = kind.ours(FORM._replace(layout=layout))
    inputs = arranged(ours, kind, [x, w])
    out = ours.run(*inputs)
    assert torch.allclose(out if layout == "mul_ir" else to_mul_ir(out, shape(kind.output.irreps)), expected)
    gradients = torch.autograd.grad(out.sum(), inputs)
    assert sum(gradient.numel() for gradient in gradients[1:]) == w.numel()
    assert all(gradient.norm() > 0 for gradient in gradients)


@pytest.mark.usefixtures("_float64")
def test_a_square_has_the_products_of_pairs_side_by_side():
    kind = Square("2x0e+2x1o", "0e+1o", Graph(5, None))
    instructions = [(0, 0, 0, "uuu", False), (1, 1, 1, "uuu", False), (0, 1, 2, "uuu", False)]
    product = o3.TensorProduct("2x0e+2x1o", "2x0e+2x1o", "2x0e+2x0e+2x1o", instructions)
    (x,) = random_inputs(kind, FLOAT64)
    assert torch.allclose(kind.e3nn(FORM).run(x), product(x, x))
    assert kind.output.irreps == o3.Irreps("4x0e+2x1o")


@pytest.mark.parametrize(
    ("problem", "graph", "inputs", "out"),
    [
        ("nequip-water", "molecule", 21 * 256 + 316 * (4 + 320), 21 * 704),
        ("nequip-water", "rows-1k", 1_000 * (256 + 4 + 320), 1_000 * 704),
        ("diffdock-l1", "molecule", 21 * 156 + 316 * (4 + 6_928), 21 * 156),
        ("diffdock-l2", "rows-1k", 1_000 * (156 + 9 + 7_128), 1_000 * 156),
        ("tetris-poly-1", "molecule", 21 * 16 + 316 * 16 + 648, 21 * 368),
        ("tetris-poly-2", "rows-1k", 1_000 * (368 + 9) + 664, 1_000 * 7),
        ("e3tools-conv", "molecule", 21 * 112 + 316 * (4 + 7_680), 21 * 128),
        ("e3tools-transformer", "molecule", 21 * 112 + 316 * 4 + 6_400, 21 * 112),
        ("linear-nequip", "molecule", 21 * 512 + 4 * 64**2, 21 * 512),
        ("square-nequip", "molecule", 21 * 512, 21 * 1_344),
    ],
)
def test_the_floor_counts_the_rows_that_there_are(problem, graph, inputs, out):
    assert kind_of(problem, graphs.build(graph)).numbers() == (inputs, out)


def test_a_linear_map_multiplies_each_component_by_its_matrix():
    counts = kind_of("linear-nequip", Graph(10, None)).multiply_adds()
    once = 10 * 64 * 64 * (1 + 1 + 3 + 3)
    assert counts == {"forward": once, "backward": 2 * once, "double_backward": 4 * once}


def test_weights_that_are_shared_mix_nodes_and_others_edges():
    graph = graphs.build("molecule")
    irreps = "8x0e", "0e", "4x0e"
    mixing = 8 * 4
    own, shared = (
        problems.products.Convolution(
            problems.products.fully_connected_product(*irreps, shared_weights=shared), graph
        ).multiply_adds()["forward"]
        for shared in (False, True)
    )
    assert own - shared == (316 - 21) * mixing
