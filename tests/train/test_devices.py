"""Several devices that share the frames of a step take the same step as one with all of them."""

import csv
import os
import sys
from pathlib import Path
from subprocess import PIPE, Popen

import numpy as np
import pytest
import torch
from ase.io import write

from train.cli import main

from .test_frames import crystals

pytestmark = pytest.mark.thorough
ROOT = Path(__file__).parents[2]
OPTIONS = (
    "--cutoff 4 --channels 4 --lmax 1 --layers 1 --radial_hidden [8] --max_epochs 2 --device cpu --dtype float64 "
    "--progress false --threads 1 --warmup_steps 2"
)


def read_log(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, Path, str]:
    """Folders of a run on one device and of one on two with half the batch, and what the latter printed.

    Crystals have one atom or eight, so that halves of a batch differ in size; nine are left for validation.
    """
    folder = tmp_path_factory.mktemp("devices")
    write(folder / "train.xyz", crystals(16))
    write(folder / "val.xyz", crystals(9, seed=1))
    files = f"--train_file {folder / 'train.xyz'} --val_file {folder / 'val.xyz'} --test_file {folder / 'val.xyz'}"
    command = ["frames", *files.split(), *OPTIONS.split()]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    two = f"--run_dir {folder / 'two'} --batch_size 2 --devices 2".split()
    arguments = [sys.executable, "-m", "train", *command, *two]
    with Popen(arguments, cwd=ROOT, env=environment, stdout=PIPE, stderr=PIPE, text=True) as process:
        main([*command, "--run_dir", str(folder / "one"), "--batch_size", "4"])  # while the other one imports
        printed, mistakes = process.communicate()
    assert process.returncode == 0, mistakes
    return folder / "one", folder / "two", printed


def test_weights_are_equal_to_rounding(runs):
    one, two = (torch.load(folder / "last.ckpt", weights_only=False) for folder in runs[:2])
    assert one["global_step"] == two["global_step"] == 8
    for key in ("state_dict", "current_model_state"):
        assert any(weight.is_floating_point() and weight.numel() > 1 for weight in one[key].values())
        for name, weight in one[key].items():
            torch.testing.assert_close(two[key][name], weight, rtol=1e-9, atol=1e-11)


def test_losses_and_errors_are_equal_to_rounding(runs):
    one, two = (read_log(folder) for folder in runs[:2])
    assert len(one) == len(two) == 2
    for name in (
        "train/loss",
        "val/loss",
        "val/energy_mae_meV",
        "val/forces_mae_meV_per_A",
        "val/stress_mae_meV_per_A3",
    ):
        np.testing.assert_allclose(*([float(row[name]) for row in log] for log in (two, one)), rtol=1e-8)


def test_results_are_written_once(runs):
    _, folder, printed = runs
    assert printed.count("results in") == 2  # before and after the training
    assert "2 x CPU" in printed
    assert {path.name for path in folder.iterdir()} == {path.name for path in runs[0].iterdir()}
