"""Symmetric contractions in the benchmark: what all are compared with, and that peers compute the same."""

from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch

from pyg_cgconv.benchmark import graphs, peers, problems
from pyg_cgconv.benchmark.graphs import Graph
from pyg_cgconv.benchmark.kind import Contender, Form
from pyg_cgconv.benchmark.measure import ORDERS, Setting, arranged, measure, random_inputs
from pyg_cgconv.benchmark.problems import kind_of
from pyg_cgconv.benchmark.symmetric import ELEMENTS, SymmetricContraction
from pyg_cgconv.tensor_product import shape, to_mul_ir

FLOAT64 = Setting(torch.device("cpu"), torch.float64, bandwidth=1e6, arithmetic=1e6, seconds=0, steps=False)
FORM = Form("mul_ir", torch.float64, torch.device("cpu"))


@pytest.fixture
def _small(monkeypatch):
    """A problem "small" on "few" rows, with paths that MACE has several times, and an output without products."""
    monkeypatch.setitem(problems.SYMMETRIC, "small", ("3x0e+3x1o", "3x0e+3x1o+3x0o", 3))
    monkeypatch.setitem(graphs.ROWS, "few", 20)


def small(rows):
    return SymmetricContraction("3x0e+3x1o", "3x0e+3x1o", 3, Graph(rows, None))


def test_the_reference_of_vectors_has_their_squares_and_themselves():
    """The polynomial |x|^2 / 6^(1/2) has the norm 1 in Bombieri's inner product times 2!."""
    kind = SymmetricContraction("2x1o", "2x0e+2x1o", 2, Graph(9, None))
    x, w = random_inputs(kind, FLOAT64)
    vectors, of_row = x.view(9, 2, 3), w.view(ELEMENTS, 2, 2)[kind.elements]
    expected = [
        of_row[:, 0] * vectors.square().sum(2) / 6**0.5,
        (of_row[:, 1, :, None] * vectors).flatten(1),
    ]
    assert torch.allclose(kind.reference(FORM).run(x, w), torch.cat(expected, 1), rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["mul_ir", "ir_mul"])
def test_this_projects_is_the_reference_with_gradients(layout):
    kind = small(20)
    given = random_inputs(kind, FLOAT64)
    ours, reference = kind.ours(FORM._replace(layout=layout)), kind.reference(FORM)
    inputs, right = arranged(ours, kind, given), arranged(reference, kind, given)
    out, expected = ours.run(*inputs), reference.run(*right)
    if layout == "ir_mul":
        out = to_mul_ir(out, shape(kind.output.irreps))
    assert torch.allclose(out, expected, rtol=0, atol=1e-12)
    found, wanted = (torch.autograd.grad(each.sin().sum(), of)[1] for each, of in ((out, inputs), (expected, right)))
    assert torch.allclose(found.flatten(), wanted, rtol=0, atol=1e-12)


def test_rows_have_the_same_elements_on_all_graphs_and_there_are_all():
    first, whole = small(16), small(4_096)
    assert whole.elements[:16].equal(first.elements)
    assert (whole.elements.bincount() > 700).all()
    assert len(whole.elements.bincount()) == ELEMENTS


@pytest.mark.parametrize(("graph", "rows"), [("molecule", 21), ("rows-4096", 4_096)])
def test_the_floor_counts_weights_once(graph, rows):
    kind = kind_of("symmetric-mace", graphs.build(graph))
    assert kind.numbers() == (rows * 128 * 16 + 5 * 49 * 128, rows * 128 * 9)


def test_weights_are_combined_once_for_all_rows():
    counts = SymmetricContraction("7x0e", "7x0e", 3, Graph(10, None)).multiply_adds()
    paths = entries = 3
    assert counts["forward"] == 10 * 7 * 3 + ELEMENTS * 7 * paths * entries  # ((c3 x + c2) x + c1) x
    assert set(counts) == {*ORDERS}


@pytest.mark.slow
@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_this_project_is_measured_whether_or_not_mace_is_installed(dtype):
    row = measure(peers.ours, "ir_mul", "small", "few", replace(FLOAT64, dtype=dtype))
    assert "missing" not in row
    assert set(row["ms"]) == {*ORDERS}
    assert row["error"] < (1e-6 if dtype == torch.float32 else 1e-14)


@pytest.mark.usefixtures("_small")
def test_a_wrong_result_is_not_timed():
    def make(kind, form):
        right = kind.reference(form)
        return Contender(lambda *inputs: right.run(*inputs) * 1.001)

    row = measure(make, "mul_ir", "small", "few", FLOAT64)
    assert row["ms"] == {}
    assert "differs from the reference by 1.0e-03" in row["missing"]


@pytest.mark.usefixtures("_small")
@pytest.mark.skipif(find_spec("mace") is not None, reason="MACE is installed")
def test_e3nns_row_says_that_it_needs_mace():
    assert "mace-torch is not installed" in measure(peers.PEERS["e3nn"], "mul_ir", "small", "few", FLOAT64)["missing"]


@pytest.mark.usefixtures("_small")
def test_openequivariances_row_says_that_it_has_none():
    row = measure(peers.PEERS["openequivariance"], "mul_ir", "small", "few", FLOAT64)
    assert row["missing"] == "openequivariance has no symmetric contraction"


@pytest.mark.slow
@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize(("with_cuequivariance", "how"), [(True, "MACE's, 12 paths"), (False, "MACE's, 19 paths")])
def test_maces_is_measured(monkeypatch, with_cuequivariance, how):
    """Without cuEquivariance MACE has paths that differ in the order of factors alone."""
    pytest.importorskip("mace")
    from mace.modules import wrapper_ops

    if with_cuequivariance:
        pytest.importorskip("cuequivariance")
    monkeypatch.setattr(wrapper_ops, "CUET_AVAILABLE", with_cuequivariance)
    row = measure(peers.PEERS["e3nn"], "ir_mul", "small", "few", FLOAT64)
    assert "missing" not in row
    assert row["error"] < 1e-14
    assert set(row["ms"]) == {*ORDERS}
    assert row["how"] == how


@pytest.mark.slow
@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("name", ["cuequivariance", "cuequivariance-naive"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cuequivariances_is_measured(name, dtype):
    pytest.importorskip("cuequivariance_torch")
    row = measure(peers.ALL[name], "mul_ir", "small", "few", replace(FLOAT64, dtype=dtype))
    assert "missing" not in row
    assert row["how"] == "naive"
    assert row["error"] < (1e-6 if dtype == torch.float32 else 1e-14)
    assert set(row["ms"]) == {*ORDERS}
