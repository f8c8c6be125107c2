import json
import sys

import pytest

from pyg_cgconv.benchmark import __main__ as benchmark
from pyg_cgconv.benchmark import peers, timing
from pyg_cgconv.benchmark.__main__ import main
from pyg_cgconv.benchmark.measure import ORDERS, STEP
from pyg_cgconv.benchmark.plot import COLORS


@pytest.mark.thorough
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
    assert set(COLORS) == {"pyg_cgconv ir_mul", "pyg_cgconv mul_ir", *peers.ALL}


def test_a_plot_without_matplotlib_is_refused_before_anything_is_measured(monkeypatch):
    monkeypatch.delitem(sys.modules, "pyg_cgconv.benchmark.plot")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(timing, "bandwidth", lambda device: pytest.fail("measured"))
    with pytest.raises(ImportError, match="--plot needs matplotlib: pip install"):
        main(["--device", "cpu", "--plot", "rows.png"])


def test_unknown_names_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--problems", "mace-huge"])
    assert "mace-huge: expected some of mace-large" in capsys.readouterr().err


@pytest.mark.thorough
def test_problems_of_every_kind_stand_in_one_table(capsys, monkeypatch):
    """What the machine can do takes as long to measure as they do."""
    for name in ("bandwidth", "arithmetic"):
        monkeypatch.setattr(timing, name, lambda *_: 1e6)
    monkeypatch.setattr(benchmark, "host_cost", lambda *_: dict.fromkeys(ORDERS, 1.0))
    problems = ["e3tools-conv", "tetris-poly-2", "linear-nequip", "square-nequip"]
    options = ["--device", "cpu", "--seconds", "0", "--layouts", "ir_mul", "--peers", "e3nn", "--graphs", "molecule"]
    rows = main([*options, "--problems", ",".join(problems)])
    assert [row["problem"] for row in rows[::2]] == problems
    assert all(set(row["ms"]) == {*ORDERS} for row in rows)
    printed = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in printed] == [name for name in problems for _ in range(2)]
