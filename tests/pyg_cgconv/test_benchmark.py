import json
import sys
from dataclasses import replace

import pytest
import torch

from pyg_cgconv.benchmark import graphs, peers, timing
from pyg_cgconv.benchmark.__main__ import line, main
from pyg_cgconv.benchmark.measure import ORDERS, STEP, Setting, check, floor, host_cost, limit, measure, step
from pyg_cgconv.benchmark.plot import COLORS

CPU = Setting(torch.device("cpu"), torch.float32, bandwidth=1e6, arithmetic=1e6, seconds=0, steps=False)


def inputs_of(problem: str, nodes: int, edges: int) -> list[torch.Tensor]:
    layer = peers.reference(problem)
    shapes = ((nodes, layer.irreps_in.dim), (edges, layer.irreps_edge.dim), (edges, layer.weight_numel))
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("name", graphs.GRAPHS)
def test_graphs_have_the_stated_size_and_are_sorted_by_target(name):
    stated_nodes, edges, _ = graphs.GRAPHS[name]
    nodes, edge_index = graphs.build(name)
    assert nodes == stated_nodes
    assert edge_index.shape == (2, edges)
    assert edge_index.dtype == torch.int64
    assert edge_index.min() >= 0
    assert edge_index.max() < nodes
    assert (edge_index[1].diff() >= 0).all()


@pytest.mark.parametrize("name", ["molecule", "molecules", "lattice", "liquid", "protein"])
def test_neighbors_are_mutual(name):
    _, edge_index = graphs.build(name)
    assert edge_index[:, peers._reverses(edge_index)].equal(edge_index.flip(0))


@pytest.mark.parametrize("name", ["hub", "regular"])
def test_a_graph_of_one_way_edges_has_no_reverses(name):
    with pytest.raises(ImportError, match="only symmetric graphs"):
        peers._reverses(graphs.build(name)[1])


def test_molecules_have_no_edges_between_them():
    _, edge_index = graphs.build("molecules")
    assert (edge_index // 21).diff(dim=0).eq(0).all()


@pytest.mark.parametrize(
    ("name", "least", "median", "most"),
    [("lattice", 150, 160, 170), ("protein", 0, 11, 56), ("hub", 8, 8, 200_000), ("regular", 17, 18, 18)],
)
def test_graphs_differ_in_how_their_edges_are_spread(name, least, median, most):
    nodes, edge_index = graphs.build(name)
    degree = edge_index[1].bincount(minlength=nodes)
    assert degree.min() >= least
    assert degree.median() == median
    assert degree.max() <= most


def test_a_hub_and_its_regular_twin_have_the_same_size():
    assert graphs.GRAPHS["hub"][:2] == graphs.GRAPHS["regular"][:2]


@pytest.mark.slow
def test_rows_are_printed_written_and_drawn(tmp_path, capsys):
    table, picture, again = (tmp_path / name for name in ("rows.json", "rows.png", "again.svg"))
    options = ["--problems", "nequip-water", "--graphs", "molecule", "--device", "cpu", "--seconds", "0", "--steps"]
    rows = main([*options, "--json", str(table), "--plot", str(picture)])
    host, printed = capsys.readouterr().out.split("\n", 1)
    assert host.startswith("host cost of a call with 316 edges: forward ")
    assert json.loads(table.read_text())["rows"] == rows
    assert [row["peer"] for row in rows] == ["pyg_cgconv ir_mul", "pyg_cgconv mul_ir", *peers.PEERS]
    for row in rows:
        if "missing" in row:
            assert row["peer"].partition("-")[0] in row["missing"]
        else:
            assert set(row["ms"]) == {*ORDERS, STEP}
            assert row["error"] < 1e-5
    assert picture.read_bytes().startswith(b"\x89PNG")

    assert main(["--from-json", str(table), "--graphs", "liquid"]) == []
    assert main(["--from-json", str(table), "--plot", str(again)]) == rows
    assert capsys.readouterr().out == printed
    assert "nequip-water" in again.read_text()


def test_every_contender_has_a_color():
    assert set(COLORS) == {"pyg_cgconv ir_mul", "pyg_cgconv mul_ir", *peers.PEERS}


def test_a_plot_without_matplotlib_is_refused_before_anything_is_measured(monkeypatch):
    monkeypatch.delitem(sys.modules, "pyg_cgconv.benchmark.plot")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(timing, "bandwidth", lambda device: pytest.fail("measured"))
    with pytest.raises(ImportError, match="--plot needs matplotlib: pip install"):
        main(["--device", "cpu", "--plot", "rows.png"])


def test_a_peer_that_is_missing_is_named():
    row = measure(peers.openequivariance, "ir_mul", "nequip-water", "molecule", CPU)
    assert row["missing"] == "openequivariance has no CPU kernels"
    row |= {"problem": "nequip-water", "graph": "molecule", "peer": "openequivariance"}
    assert line(row).endswith("openequivariance has no CPU kernels")


def test_a_contender_keeps_the_times_that_it_had_when_its_memory_ran_out():
    def make(problem, layout, edge_index, dtype):
        right = peers.ours(problem, layout, edge_index, dtype)

        def forgetful(x, y, w):
            out = right.run(x, y, w)
            if out.requires_grad:
                out.register_hook(out_of_memory)
            return out

        return peers.Convolution(forgetful, layout)

    def out_of_memory(_):
        raise torch.OutOfMemoryError("too large")

    row = measure(make, "ir_mul", "nequip-water", "molecule", CPU)
    assert set(row["ms"]) == {"forward"}
    assert row["missing"] == "out of memory"


def test_the_floor_counts_each_number_once():
    assert floor(1, 2, 3, 4, 8, 1.0) == (80, 128, 208)


def test_the_limit_is_the_slower_of_memory_and_arithmetic():
    slow_memory, slow_arithmetic = (
        measure(peers.ours, "ir_mul", "nequip-water", "molecule", replace(CPU, bandwidth=b, arithmetic=a))
        for b, a in ((1.0, 1e9), (1e9, 1.0))
    )
    for order in ORDERS:
        assert limit(slow_memory, order) == slow_memory["floor_ms"][order] > slow_memory["arithmetic_ms"][order]
        assert limit(slow_arithmetic, order) == slow_arithmetic["arithmetic_ms"][order]
    assert limit({"floor_ms": {"forward": 2.0}}, "forward") == 2.0, "a row of an older file"


def test_a_wrong_result_is_not_timed():
    nodes, edge_index = graphs.build("molecule")
    right = peers.ours("nequip-water", "ir_mul", edge_index, torch.float32)
    wrong = peers.Convolution(lambda *inputs: right.run(*inputs) * 1.001, right.layout)
    inputs = inputs_of("nequip-water", nodes, 316)
    assert check(right, "nequip-water", edge_index, inputs) < 1e-6
    with pytest.raises(RuntimeError, match="differs from e3nn"):
        check(wrong, "nequip-water", edge_index, inputs)
    row = measure(lambda *_: wrong, "ir_mul", "nequip-water", "molecule", CPU)
    assert row["ms"] == {}
    assert "differs from e3nn" in row["missing"]


def test_a_step_is_the_same_by_every_contender():
    nodes, edge_index = graphs.build("molecule")
    inputs = inputs_of("nequip-water", nodes, 316)
    ours, e3nn = (make("nequip-water", "mul_ir", edge_index, torch.float32) for make in (peers.ours, peers.e3nn))
    for gradient, expected in zip(step(ours.run, *inputs), step(e3nn.run, *inputs), strict=True):
        assert (gradient - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_working_memory_leaves_out_inputs_and_results():
    numbers = torch.ones(2**20, device="cuda")
    assert timing.working_memory(lambda: numbers + 1) == 0
    assert timing.working_memory(lambda: [(numbers + 1).sum()]) == pytest.approx(4.2, abs=0.1)


def test_unknown_names_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--problems", "mace-huge"])
    assert "mace-huge: expected some of mace-large" in capsys.readouterr().err


def test_the_hosts_cost_grows_with_the_order():
    cost = host_cost(torch.device("cpu"), seconds=0)
    assert list(cost) == list(ORDERS)
    assert 1 < cost["forward"] < cost["backward"] < cost["double_backward"] < 1e5
