import re
import runpy
import sys
from dataclasses import fields

import pytest
import yaml

from train import md17
from train.cli import main, parse
from train.md17 import MD17Options
from train.options import FitOptions, ModelOptions, RunOptions
from train.tasks import TASKS, preset_names, read_preset


def parsed(*arguments: str) -> dict:
    """All options of a command line by name."""
    _, groups, _ = parse(arguments)
    return {name: value for group in groups for name, value in vars(group).items()}


def test_options_reach_their_classes():
    task, (data, model, fit, run), _ = parse(
        ["md17", "--root", "frames", "--channels", "7", "--lr", "0.5", "--seed", "3", "--radial_hidden", "[5, 6]"]
    )
    assert task == "md17"
    assert (type(data), type(model), type(fit), type(run)) == (MD17Options, ModelOptions, FitOptions, RunOptions)
    assert (str(data.root), model.channels, fit.lr, run.seed, model.radial_hidden) == ("frames", 7, 0.5, 3, (5, 6))


@pytest.mark.parametrize("task", TASKS)
def test_presets_set_known_options(task):
    known = {field.name for group in TASKS[task].OPTIONS for field in fields(group)}
    assert set(preset_names(task)) == {"small", "medium", "large"}
    required = ["--train_file", "train.xyz"] if task == "frames" else []
    for name in preset_names(task):
        preset = read_preset(task, name)
        assert preset.keys() <= known
        found = parsed(task, "--preset", name, *required)
        assert {key: found[key] for key in preset} == preset


def test_command_line_beats_file_beats_preset(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("preset: medium\nlmax: 0\nlr: 0.125\n")
    medium = read_preset("md17", "medium")
    found = parsed("md17", "--config", str(file), "--lr", "0.25")
    assert (found["channels"], found["lmax"], found["lr"]) == (medium["channels"], 0, 0.25)


def test_written_configuration_gives_the_same_options(tmp_path):
    arguments = ["md17", "--preset", "medium", "--batch_size", "3", "--max_time", "00:00:00:09", "--parity", "true"]
    _, options, config = parse(arguments)
    (tmp_path / "config.yaml").write_text(config)
    assert (yaml.safe_load(config)["task"], yaml.safe_load(config)["batch_size"]) == ("md17", 3)
    assert parse(["md17", "--config", str(tmp_path / "config.yaml")])[1] == options


def test_the_configuration_of_one_task_is_not_for_another(tmp_path):
    (tmp_path / "config.yaml").write_text(parse(["md17"])[2])
    with pytest.raises(ValueError, match=r"config\.yaml' has task='md17': python -m train md17 takes it, not qm9"):
        parse(["qm9", "--config", str(tmp_path / "config.yaml")])


@pytest.mark.parametrize(("text", "message"), [("- lr", r"expected lines such as .*\['lr'\]"), ("lr: [", "is no YAML")])
def test_files_without_options_are_named(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"config='.*mine\.yaml'.*{message}"):
        parse(["md17", "--config", str(tmp_path / "mine.yaml")])


def test_help_shows_units_presets_and_defaults(capsys):
    with pytest.raises(SystemExit, match="0"):
        parse(["md17", "--preset", "large", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "Angstrom" in shown
    assert "large, medium, small" in shown
    assert f"(type: int, default: {read_preset('md17', 'large')['channels']})" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "huge"], "preset='huge': unknown for md17, expected one of large, medium, small"),
        (["--molecule", "aspirin"], "molecule='aspirin': the embedded frames are ethanol"),
        (["--split", "2"], "split=2: the embedded frames have no published split"),
        (["--train_size", "0"], "train_size=0: expected a number above 0"),
        (["--lr", "-1"], r"lr=-1.0: expected a number above 0"),
        (["--max_time", "4 minutes"], "max_time='4 minutes': expected DD:HH:MM:SS"),
        (["--ema_decay", "1"], "ema_decay=1.0: expected a number from 0"),
        (["--stage_two_start", "2"], "stage_two_start=2.0: expected a part of the training"),
        (["--devices", "0"], "devices=0: expected a number above 0"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        main(["md17", *arguments])


def test_mistakes_are_one_line_in_a_shell(monkeypatch):
    """A text with which a program exits is printed, and its status is 1."""
    monkeypatch.setattr(sys, "argv", ["train", "md17", "--molecule", "aspirin"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("train", run_name="__main__")
    assert re.fullmatch("error: molecule='aspirin': .*", stopped.value.code)


def test_energies_of_atoms_are_a_table(tmp_path):
    table = {"H": -13.6, "O": -2041.8}
    assert parsed("md17", "--atom_energies", "{H: -13.6, O: -2041.8}")["atom_energies"] == table
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"atom_energies": table}))
    assert parsed("md17", "--config", str(tmp_path / "mine.yaml"))["atom_energies"] == table


def test_unknown_options_are_named(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["md17", "--learning_rate", "0.1"])
    assert "learning_rate" in capsys.readouterr().err


def test_a_task_is_required(capsys):
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "md17" in capsys.readouterr().err


def test_defaults_are_the_embedded_frames():
    assert parsed("md17")["root"] is None
    assert parsed("md17")["molecule"] == "ethanol"
    assert md17.DEFAULT_PRESET in preset_names("md17")
