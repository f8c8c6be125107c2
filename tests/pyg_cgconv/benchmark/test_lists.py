"""The table of neighbour lists, with a small potential, and packages that may not be installed."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from pyg_cgconv.benchmark import lists
from pyg_cgconv.benchmark.__main__ import main
from pyg_cgconv.benchmark.lists import EAGER, GRAPH, LIST, OURS
from pyg_cgconv.benchmark.model_rows import INFERENCE

ROOT = Path(__file__).parents[3]
OPTIONS = ["--neighbors", "--sizes", "64", "--seconds", "0"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(lists, "MEDIUM", {"cutoff": lists.CUTOFF, "channels": 2, "lmax": 1, "layers": 1})


@pytest.fixture
def packages(monkeypatch):
    """Stand-ins for matscipy, which finds all pairs by ASE, and vesin, which drops one."""
    from ase.neighborlist import primitive_neighbor_list

    def neighbour_list(quantities, cutoff, positions, cell, pbc):
        return primitive_neighbor_list(quantities, pbc, cell, positions, cutoff)

    class NeighborList:
        def __init__(self, cutoff, full_list):
            assert full_list
            self.cutoff = cutoff

        def compute(self, points, box, periodic, quantities):
            positions, cell = points.cpu().numpy(), box.cpu().numpy()
            found = primitive_neighbor_list(quantities, [periodic] * 3, cell, positions, self.cutoff)
            return [each[1:] for each in found]

    monkeypatch.setitem(sys.modules, "matscipy", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "matscipy.neighbours", SimpleNamespace(neighbour_list=neighbour_list))
    monkeypatch.setitem(sys.modules, "vesin", SimpleNamespace(NeighborList=NeighborList))


@pytest.mark.slow
def test_lists_are_beside_a_step_and_are_the_same(packages, tmp_path, capsys):
    file = tmp_path / "rows.json"
    rows = main([*OPTIONS, "--device", "cpu", "--json", str(file)])
    printed = capsys.readouterr().out
    assert json.loads(file.read_text())["rows"] == rows
    found = {row["peer"]: row for row in rows}
    assert list(found) == [OURS, "matscipy", "vesin", EAGER, GRAPH]

    step = found[EAGER]["ms"][INFERENCE]
    for name in (OURS, "matscipy"):
        row = found[name]
        assert row["share"] == {EAGER: pytest.approx(row["ms"][LIST] / step)}
        assert row["us_per_atom"] == pytest.approx(1e3 * row["ms"][LIST] / 64)
    edges = found[OURS]["edges"]
    assert edges == found["matscipy"]["edges"] == pytest.approx(52.4 * 64, rel=0.1)
    assert found["vesin"]["missing"] == f"it finds {edges - 1} edges, {OURS} {edges}; it was not timed"
    assert found[GRAPH]["missing"] == "CUDA graphs need a GPU"
    assert not found["vesin"]["ms"]

    assert main(["--from-json", str(file)]) == main(["--from-json", str(file), "--neighbors"]) == rows
    assert capsys.readouterr().out == 2 * printed
    assert main(["--from-json", str(file), "--models", "mace"]) == []


def test_packages_that_are_not_installed_are_named(monkeypatch):
    for name in ("matscipy", "matscipy.neighbours", "vesin"):
        monkeypatch.setitem(sys.modules, name, None)
    found = {row["peer"]: row for row in main([*OPTIONS, "--device", "cpu"])}
    for name in ("matscipy", "vesin"):
        assert name in found[name]["missing"]
        assert not found[name]["ms"]


def test_a_step_without_a_list_says_so(monkeypatch):
    def full(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(lists, "radius_graph", full)
    found = {row["peer"]: row for row in main([*OPTIONS, "--device", "cpu"])}
    assert found[OURS]["missing"] == "out of memory"
    assert found[EAGER]["missing"] == f"there is no list by {OURS}"


def test_the_liquid_is_as_dense_as_it_is_said():
    data = lists.liquid(3000)
    assert data.num_nodes / float(torch.linalg.det(data.cell[0])) == pytest.approx(lists.DENSITY)
    sphere = 4 / 3 * np.pi * lists.CUTOFF**3
    assert lists.DENSITY * sphere == pytest.approx(lists.NEIGHBORS, rel=0.01)


def test_the_potential_is_that_of_the_preset(monkeypatch):
    monkeypatch.undo()
    preset = yaml.safe_load((ROOT / "train/presets/frames-medium.yaml").read_text())
    assert {name: preset[name] for name in lists.MEDIUM} == lists.MEDIUM
    of_training = {"batch_size", "lr", "max_epochs"}
    assert set(preset) - of_training == set(lists.MEDIUM)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models", "mace", "--steps"], "--neighbors: has no --models, --steps"),
        (["--problems", "mace-large"], "--neighbors: has no --problems"),
        (["--peers", "e3nn"], "--neighbors: has no --peers"),
        (["--largest"], "--neighbors: has no --largest"),
        (["--sizes", "7,0"], "7,0: expected positive numbers of atoms"),
        (["--json", "absent/lists.json"], "--json: absent/lists.json: its folder does not exist"),
        (["--from-json", "absent.json"], "--from-json: absent.json: no such file"),
    ],
)
def test_mistakes_are_named(options, message, capsys):
    with pytest.raises(SystemExit):
        main(["--neighbors", *options])
    assert message in capsys.readouterr().err


@pytest.mark.cuda
def test_lists_on_a_gpu_beside_a_replayed_step():
    found = {row["peer"]: row for row in main([*OPTIONS, "--device", "cuda"])}
    assert set(found[OURS]["share"]) == {EAGER, GRAPH}
