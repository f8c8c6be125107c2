"""The comparison without MACE and NequIP: what they would be asked, and what is made of their answers."""

import json
import shlex
import stat
from pathlib import Path

import ase.io
import numpy as np
import pytest
import yaml

from datasets import EthanolPBE
from train.cli import parse
from train.md17 import MD17Options
from train.side_by_side import finished
from train.side_by_side.__main__ import main
from train.side_by_side.codes import Mace, Nequip, PygCGConv, chosen_codes, words_of
from train.side_by_side.frames import write_frames
from train.side_by_side.options import ComparisonOptions
from train.side_by_side.runs import check_parameters, mean_errors
from train.side_by_side.table import markdown

TRIED = {"epochs": 3, "first_epoch_seconds": 10.0, "later_epochs_seconds": 4.0}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_frames(MD17Options(train_size=5, val_size=2, test_size=3), tmp_path_factory.mktemp("frames"))


def test_frames_are_those_of_the_data_set_with_energies_from_the_mean_of_training(files):
    train, test = (ase.io.read(path, ":") for path in (files.train, files.test))
    chosen = EthanolPBE().random_split(5, 2, 3, seed=0)
    energies = np.array([EthanolPBE()[i].energy.item() for i in chosen[0].tolist()])
    assert np.allclose([atoms.get_potential_energy() for atoms in train], energies - energies.mean(), atol=1e-7)
    reference = [EthanolPBE()[i] for i in chosen[2].tolist()]
    assert np.allclose([atoms.get_forces() for atoms in test], [frame.forces.numpy() for frame in reference], atol=1e-7)
    assert files.symbols == ("C", "H", "O")
    assert files.sizes == {"train": 5, "validation": 2, "test": 3}


def test_our_command_is_understood_and_ends_in_time(files, tmp_path):
    code = PygCGConv(("python",), ())
    command = [*code.command(files, tmp_path / "run", 3, 1), *code.end(90, TRIED)]
    task, (data, model, fit, _, run), _ = parse(command[2:])
    assert (task, data.test_file, run.seed, run.threads) == ("frames", str(files.test), 3, 1)
    assert (model.layers, model.products, fit.lr, fit.max_time) == (3, True, 0.03, "00:00:01:30")


def test_mace_gets_the_epochs_that_the_trial_says(files, tmp_path):
    code = Mace(("python",), ())
    assert code.end(100, TRIED) == ["--max_num_epochs=46", "--stage_two", "--start_stage_two=37"]  # 1 + (100 - 10) / 2
    assert code.end(1, TRIED) == ["--max_num_epochs=2", "--stage_two", "--start_stage_two=1"]
    assert f"--train_file={files.train}" in code.command(files, tmp_path, 0, 1)


def test_nequip_has_its_settings_in_a_file(files, tmp_path):
    code = Nequip(("python",), ())
    command = code.command(files, tmp_path / "run", 7, 1)
    config = yaml.safe_load((Path(command[3]) / "config.yaml").read_text())
    assert config["data"]["train_file_path"] == str(files.train)
    assert config["training_module"]["model"]["type_names"] == ["C", "H", "O"]
    assert (config["data"]["seed"], config["training_module"]["model"]["seed"]) == (7, 7)
    assert "+trainer.max_time='00:01:01:05'" in code.end(3665, {})


def test_an_environment_may_be_words_of_a_shell(tmp_path, monkeypatch):
    (tmp_path / "python").touch()
    monkeypatch.chdir(tmp_path)
    assert words_of("env PYTHONPATH=/a/b python3") == ("env", "PYTHONPATH=/a/b", "python3")
    assert words_of("./python") == (str(tmp_path / "python"),)
    options = ComparisonOptions(run_dir=tmp_path, mace="env A=1 python", mace_options="--num_channels=8 --max_L=0")
    assert chosen_codes(options)[1] == Mace(("env", "A=1", "python"), ("--num_channels=8", "--max_L=0"))


def test_the_log_of_mace_tells_time_and_epochs():
    text = "\n".join(
        [
            "2026-11-28 13:00:00.000 INFO: Initial: head: Default, loss=3.0, RMSE_E_per_atom= 1 meV",
            "2026-11-28 13:00:10.000 INFO: Epoch 0: head: Default, loss=2.0, RMSE_E_per_atom= 1 meV",
            "2026-11-28 13:00:12.500 INFO: Changing loss based on Stage Two Weights",
            "2026-11-28 13:00:13.500 INFO: Epoch 1: head: Default, loss=1.0, RMSE_E_per_atom= 1 meV",
        ]
    )
    expected = {"seconds": 13.5, "epochs": 2, "first_epoch_seconds": 10.0, "later_epochs_seconds": 3.5}
    assert finished.of_the_log(text) == expected


def test_errors_are_mean_absolute_ones(files):
    structures = ase.io.read(files.test, ":")
    energy = [
        atoms.get_potential_energy() + shift for atoms, shift in zip(structures, (0.001, -0.002, 0.003), strict=True)
    ]
    forces = [(atoms.get_forces() - 0.005).tolist() for atoms in structures]
    assert mean_errors(files.test, energy, forces) == pytest.approx({"energy_mae_meV": 2, "forces_mae_meV_per_A": 5})


def test_sizes_that_differ_by_more_than_a_fifth_are_refused():
    check_parameters({"mace": 100, "nequip": 120})
    with pytest.raises(ValueError, match="mace 100, nequip 121; expected that they agree within 20 %"):
        check_parameters({"mace": 100, "nequip": 121})


def run_of(code: str, seed: int, energy: float, forces: float) -> dict:
    test = {"energy_mae_meV": energy, "forces_mae_meV_per_A": forces}
    return {
        "code": code, "version": "1.0", "seed": seed, "parameters": 67320, "seconds": 600.4, "epochs": 50, "test": test
    }  # fmt: skip


def test_the_table_has_means_and_deviations_over_seeds(tmp_path, capsys):
    report = {"runs": [run_of("a", 0, 1, 30), run_of("a", 1, 3, 30), run_of("b", 0, 4, 20), run_of("b", 1, 4, 22)]}
    (tmp_path / "results.json").write_text(json.dumps(report))
    assert main(["--from_json", str(tmp_path / "results.json")]) == report
    table = capsys.readouterr().out.splitlines()
    assert table[2] == "| a 1.0 | 67,320 | 600 | 50 | **2.00 ± 1.41** | 30.00 ± 0.00 |"
    assert table[3] == "| b 1.0 | 67,320 | 600 | 50 | 4.00 ± 0.00 | **21.00 ± 1.41** |"
    assert "± " not in markdown({"runs": report["runs"][:1]})


# Stands for the Python of an environment: it imports what it is asked to, trains nothing, and answers for the model.
STAND_IN = """#!/bin/sh
echo "$@" >> {log}
case "$*" in
  *finished.py*test.xyz) echo '{long}' ;;
  *finished.py*) echo '{short}' ;;
esac
"""


def test_a_comparison_with_one_environment(tmp_path, capsys):
    facts = {"version": "0.3", "seconds": 60.0, "epochs": 3, "first_epoch_seconds": 20.0, "later_epochs_seconds": 40.0}
    facts |= {"parameters": 70000, "torch": "2.0"}
    zeros = facts | {"energy": [0.0, 0.0], "forces": [[[0.0] * 3] * 9] * 2}
    python = tmp_path / "python"
    python.write_text(STAND_IN.format(log=tmp_path / "log", long=json.dumps(zeros), short=json.dumps(facts)))
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    sizes = "--train_size 3 --val_size 2 --test_size 2 --seeds [0,1] --max_time 00:00:01:00"
    others = f"--pyg_cgconv {tmp_path}/none --nequip {tmp_path}/none --mace {python}"
    report = main(shlex.split(f"--run_dir {tmp_path}/run {sizes} {others}"))
    printed = capsys.readouterr().out
    assert set(report["left_out"]) == {"pyg_cgconv", "nequip"}
    assert "nequip is left out" in printed
    assert [(run["code"], run["seed"]) for run in report["runs"]] == [("mace", 0), ("mace", 1)]
    reference = np.array([atoms.get_forces() for atoms in ase.io.read(tmp_path / "run/test.xyz", ":")])
    error = report["runs"][0]["test"]["forces_mae_meV_per_A"]
    assert error == pytest.approx(1000 * np.abs(reference).mean())
    assert (tmp_path / "run/table.md").read_text() in printed
    assert json.loads((tmp_path / "run/results.json").read_text()) == report
    assert (tmp_path / "log").read_text().count("run_train --name") == 4  # a trial and a training for each seed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_time": "10 minutes"}, "max_time='10 minutes': expected DD:HH:MM:SS"),
        ({"max_time": "00:00:00:00"}, "max_time="),
        ({"seeds": (1, 1)}, r"seeds=\[1, 1\]: expected different numbers"),
        ({"jobs": 0}, "jobs=0"),
        ({"run_dir": None}, "either run_dir, a new folder, or from_json"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ComparisonOptions(**{"run_dir": Path("new"), **options})
