"""The examples run as a user runs them."""

import os
import re
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


@pytest.mark.slow
def test_a_learned_crystal_relaxes_vibrates_and_lets_atoms_hop_as_its_reference(tmp_path):
    """The numbers that the example prints, by EMT and by the potential that has learned it."""
    printed = run("relaxation_phonons_neb.py", tmp_path, "60")
    found = {
        label: [float(word) for word in re.findall(r"\d+\.\d+", printed.split(f"{label}: lattice")[1].splitlines()[0])]
        for label in ("EMT", "learned")
    }
    lattice, phonon, barrier = zip(found["EMT"], found["learned"], strict=True)
    assert lattice[1] == pytest.approx(lattice[0], rel=0.005)
    assert phonon[1] == pytest.approx(phonon[0], rel=0.15)
    assert barrier[1] == pytest.approx(barrier[0], abs=0.12)
    smallest = float(printed.split("smallest eigenvalue ")[1].split(",")[0])
    assert abs(smallest) < 1e-3  # translations; the crystal is in its minimum


@pytest.mark.parametrize("script", ["own_network.py", "data_set.py"])
def test_examples_are_short(script):
    assert len((ROOT / "examples" / script).read_text().splitlines()) <= 80
