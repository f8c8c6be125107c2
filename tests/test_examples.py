"""The examples run as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(script: str, folder: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "examples" / script), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_own_network_turns_with_the_molecules(tmp_path):
    printed = run("own_network.py", tmp_path)
    error = float(printed.split("equivariance error: ")[1].split()[0])
    assert error < 1e-5


@pytest.mark.slow
def test_data_set_is_read_plotted_and_batched(tmp_path):
    printed = run("data_set.py", tmp_path, "plot.png")
    assert "molecules a batch" in printed
    assert (tmp_path / "plot.png").stat().st_size > 10_000


@pytest.mark.parametrize("script", ["own_network.py", "data_set.py"])
def test_examples_are_short(script):
    assert len((ROOT / "examples" / script).read_text().splitlines()) <= 80
