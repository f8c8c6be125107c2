"""SIGTERM, in processes of their own."""

import csv
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from train.checkpoints import LAST
from train.cli import main

from .processes import ENDLESS, TINY, command, forked, wait_for

pytestmark = pytest.mark.slow
CONSTANT = "--schedule constant"  # a cosine would know of another end


def terminate(folder: Path, arguments: str, start=forked) -> tuple[int, str]:
    """A training that gets the signal when it has a checkpoint: its exit code, and what it wrote to stderr."""
    process = start(f"md17 --run_dir {folder} {arguments}")
    wait_for(folder / LAST, process)
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    _, mistakes = process.communicate(timeout=60)
    return process.returncode, mistakes


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> tuple[Path, int, str]:
    folder = tmp_path_factory.mktemp("stopped") / "run"
    return folder, *terminate(folder, f"{ENDLESS} {CONSTANT}")


def test_exit_code_is_that_of_the_signal(stopped):
    assert stopped[1] == 143


def test_it_says_how_to_go_on(stopped):
    folder, _, mistakes = stopped
    assert mistakes.strip().endswith(f"stopped; go on with --resume {folder}")
    assert "Traceback" not in mistakes


def test_the_checkpoint_is_of_the_moment_of_the_signal(stopped):
    """Epochs are much shorter than the time between two others."""
    folder, *_ = stopped
    with open(folder / "metrics.csv", newline="") as file:
        logged = [int(row["epoch"]) for row in csv.DictReader(file)]
    assert logged
    assert torch.load(folder / LAST)["epoch"] + 1 - logged[-1] in (0, 1)


def test_it_goes_on_bit_for_bit(stopped, tmp_path):
    shutil.copytree(stopped[0], tmp_path / "cut")
    epochs = torch.load(tmp_path / "cut" / LAST)["epoch"] + 2
    main(f"md17 --resume {tmp_path / 'cut'} --max_epochs {epochs}".split())
    main(f"md17 --run_dir {tmp_path / 'whole'} {TINY} {CONSTANT} --max_epochs {epochs}".split())
    found, expected = (torch.load(tmp_path / name / LAST)["current_model_state"] for name in ("cut", "whole"))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.thorough
def test_several_devices_stop_together(tmp_path):
    code, mistakes = terminate(tmp_path / "run", f"{ENDLESS} --devices 2", start=command)
    assert code == 143
    assert mistakes.count("stopped; go on with --resume") == 1


def test_before_the_training_it_ends_the_process_with_the_same_code(tmp_path):
    process = forked(f"md17 --run_dir {tmp_path / 'run'} {ENDLESS}")
    wait_for(tmp_path / "run" / "config.yaml", process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
