"""The command line of the commands on a trained model; what they do is tested module by module."""

from dataclasses import fields
from pathlib import Path

import ase.io
import pytest
import yaml

from pyg_cgconv import Potential
from train.cli import main, parse
from train.commands import COMMANDS
from train.md_options import DynamicsOptions
from train.trained import ModelFile

from .conftest import spring_atoms


def options_of(*arguments: str) -> dict:
    """All options of a command line by name."""
    _, groups, _ = parse(arguments)
    return {name: value for group in groups for name, value in vars(group).items()}


@pytest.fixture
def structures(tmp_path) -> Path:
    ase.io.write(tmp_path / "in.xyz", spring_atoms(2))
    return tmp_path / "in.xyz"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_option(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        parse([command, "--help"])
    shown = capsys.readouterr().out
    names = {field.name for group in COMMANDS[command].OPTIONS for field in fields(group)} - {"model"}
    assert names
    assert all(f"--{name} " in shown for name in names)
    assert "a run folder, its potential.pt, a checkpoint" in " ".join(shown.split())


def test_help_gives_units(capsys):
    with pytest.raises(SystemExit, match="0"):
        parse(["md", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert all(unit in shown for unit in ("fs.", "ps, instead of steps", "1/ps", "Angstrom", "K."))


def test_commands_stand_beside_the_tasks(capsys):
    with pytest.raises(SystemExit, match="0"):
        parse(["--help"])
    shown = capsys.readouterr().out
    assert all(command in shown for command in (*COMMANDS, "md17"))


def test_values_reach_their_classes():
    options = ["--structure", "a.xyz", "--time", "2.5", "--ensemble", "nvt"]
    task, (model, dynamics, *_), _ = parse(["md", "best.ckpt", *options])
    assert (task, model) == ("md", ModelFile(Path("best.ckpt")))
    assert dynamics == DynamicsOptions(Path("a.xyz"), time=2.5, ensemble="nvt")


def test_several_files_follow_one_option():
    found = options_of(*["predict", "run", "--data", "a.xyz", "b.xyz", "--output", "out.xyz"])
    assert (list(found["model"]), list(found["data"])) == ([Path("run")], [Path("a.xyz"), Path("b.xyz")])
    assert list(options_of("evaluate", "run")["data"]) == []


def test_a_file_gives_options_too(tmp_path):
    file = tmp_path / "md.yaml"
    file.write_text(yaml.safe_dump({"structure": "a.xyz", "temperature": 77.0, "steps": 30}))
    found = options_of("md", "--config", str(file), "run", "--steps", "40")
    assert (found["model"], found["structure"]) == (Path("run"), Path("a.xyz"))
    assert (found["temperature"], found["steps"]) == (77.0, 40)


def test_several_models_make_a_committee():
    found = options_of(*["select", "a", "b.ckpt", "--pool", "c.xyz", "d.xyz", "--number", "3"])
    assert list(found["model"]) == [Path("a"), Path("b.ckpt")]
    assert list(found["pool"]) == [Path("c.xyz"), Path("d.xyz")]


@pytest.mark.parametrize(
    ("arguments", "name"), [("predict run --data a.xyz", "output"), ("export run", "output"), ("md run", "structure")]
)
def test_missing_options_are_named(arguments, name, capsys):
    with pytest.raises(SystemExit, match="2"):
        parse(arguments.split())
    assert name in capsys.readouterr().err


def test_a_model_is_required(capsys):
    with pytest.raises(SystemExit, match="2"):
        parse(["export", "--output", "model.pt"])
    assert "model" in capsys.readouterr().err


@pytest.mark.slow
def test_each_command_runs(trained, structures, tmp_path, capsys, no_plots):
    compute = ["--device", "cpu"]
    exported, predicted = str(tmp_path / "model.pt"), str(tmp_path / "out.xyz")
    main(["export", str(trained), "--output", exported])
    main(["predict", exported, "--data", str(structures), "--output", predicted, *compute])
    errors = main(["evaluate", exported, "--data", predicted, "--run_dir", str(tmp_path / "errors"), *compute])
    dynamics = ["--structure", str(structures), "--steps", "20", "--run_dir", str(tmp_path / "md")]
    summary = main(["md", exported, *dynamics, *compute])
    assert Potential.load(exported).metadata["species"] == ["H", "C", "O"]
    assert errors["errors"]["forces_mae_meV_per_A"] < 0.1  # with itself
    assert summary["steps"] == 20
    printed = capsys.readouterr().out
    assert all(text in printed for text in (exported, predicted, "mean absolute error", "energy drift"))
