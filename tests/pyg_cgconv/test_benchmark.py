import json

import pytest
import torch

from pyg_cgconv.benchmark import graphs, peers
from pyg_cgconv.benchmark.__main__ import ORDERS, check, floor, main


@pytest.mark.parametrize("name", ["molecule", "molecules"])
def test_graphs_have_the_stated_size_and_are_sorted_by_target(name):
    copies, atoms, edges, _ = graphs.GRAPHS[name]
    nodes, edge_index = graphs.build(name)
    assert nodes == copies * atoms
    assert edge_index.shape == (2, edges)
    assert (edge_index[1].diff() >= 0).all()
    assert (edge_index // atoms).diff(dim=0).eq(0).all(), "no edges between copies"
    pairs = {tuple(pair) for pair in edge_index.T.tolist()}
    assert pairs == {pair[::-1] for pair in pairs}


def test_rows_are_written_and_a_peer_that_is_missing_is_named(tmp_path):
    file = tmp_path / "rows.json"
    rows = main(
        ["--problems", "nequip-water", "--graphs", "molecule", "--device", "cpu", "--repeats", "1", "--json", str(file)]
    )
    written = json.loads(file.read_text())
    assert written["rows"] == rows
    assert {row["peer"] for row in rows} == {"pyg_cgconv ir_mul", "pyg_cgconv mul_ir", "e3nn", "cuequivariance"}
    for row in rows:
        assert ("ms" in row and set(row["ms"]) == set(ORDERS)) or "cuequivariance" in row["missing"]


def test_the_floor_counts_each_number_once():
    assert floor(1, 2, 3, 4, 8, 1.0) == (80, 128, 208)


def test_a_wrong_result_is_not_timed():
    nodes, edge_index = graphs.build("molecule")
    right = peers.ours("nequip-water", "ir_mul", edge_index, torch.float32)
    wrong = peers.Convolution(lambda *inputs: right.run(*inputs) * 1.001, right.layout)
    layer = peers.reference("nequip-water")
    shapes = ((nodes, layer.irreps_in.dim), (316, layer.irreps_edge.dim), (316, layer.weight_numel))
    inputs = [torch.randn(shape) for shape in shapes]
    assert check(right, "nequip-water", edge_index, inputs) < 1e-6
    with pytest.raises(RuntimeError, match="differs from e3nn"):
        check(wrong, "nequip-water", edge_index, inputs)


def test_unknown_names_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--problems", "mace-huge"])
    assert "mace-huge: expected some of mace-large" in capsys.readouterr().err
