"""The examples run as a user runs them."""

import re
from pathlib import Path

import pytest

from tests.forked import ROOT, Forked


def run(script: str, folder: Path, *arguments: str) -> str:
    process = Forked([ROOT / "examples" / script, *arguments], folder)
    printed, mistakes = process.communicate()
    assert process.returncode == 0, mistakes
    return printed


@pytest.mark.thorough
def test_own_network_turns_with_the_molecules(tmp_path):
    printed = run("own_network.py", tmp_path)
    error = float(printed.split("equivariance error: ")[1].split()[0])
    assert error < 1e-5


@pytest.mark.thorough
def test_data_set_is_read_plotted_and_batched(tmp_path):
    printed = run("data_set.py", tmp_path, "plot.png")
    assert "molecules a batch" in printed
    assert (tmp_path / "plot.png").stat().st_size > 10_000


@pytest.mark.thorough
def test_a_learned_crystal_relaxes_vibrates_and_lets_atoms_hop_as_its_reference(tmp_path):
    """The numbers that the example prints, by EMT and by the potential that has learned it."""
    printed = run("relaxation_phonons_neb.py", tmp_path, "40")
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


def numbers_after(label: str, printed: str) -> list[float]:
    """Those of the line that begins with ``label``."""
    (line,) = [line for line in printed.splitlines() if line.startswith(label)]
    return [float(number) for number in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", line.removeprefix(label))]


@pytest.mark.thorough
def test_point_clouds_are_told_apart_and_their_mirror_images(tmp_path):
    printed = run("point_clouds.py", tmp_path)
    assert float(printed.split("%")[0].splitlines()[-1]) >= 90  # of four classes; without the pseudoscalar, 75
    assert numbers_after("equivariance error:", printed)[0] < 1e-4


@pytest.mark.thorough
def test_hetero_learns_a_field_that_turns_with_the_charges(tmp_path):
    printed = run("hetero.py", tmp_path)
    assert numbers_after("error of the field at 1000 probes of new systems:", printed)[0] < 10  # per cent
    assert numbers_after("equivariance error:", printed)[0] < 1e-5


@pytest.mark.thorough
def test_own_xyz_goes_from_a_file_to_a_calculator(tmp_path):
    printed = run("own_xyz.py", tmp_path)
    assert "labels      energy of 150, forces of 150, stress of 150" in printed
    for name in ("energy", "forces", "stress"):
        largest, error = numbers_after(f"{name}: largest component", printed)
        assert error < 0.2 * largest, name
    assert (tmp_path / "runs" / "alloy" / "potential.pt").exists()
    assert (tmp_path / "runs" / "test" / "parity.png").exists()


@pytest.mark.thorough
def test_relaxation_finds_the_lattices_of_emt(tmp_path):
    printed = run("relaxation.py", tmp_path)
    for name in ("Cu", "Cu3Au", "NiAl"):
        learnt, expected = numbers_after(f"{name}: lattice constant", printed)
        assert abs(learnt / expected - 1) < 0.02, name


@pytest.mark.thorough
def test_qm9_loop_learns_more_than_the_composition_tells(tmp_path):
    printed = run("qm9_loop.py", tmp_path)
    (learnt,) = numbers_after("U0 of 200 other molecules:", printed)
    (composition,) = numbers_after("from the composition alone:", printed)
    assert learnt < composition / 2


@pytest.mark.thorough
def test_fine_tuning_is_better_than_to_begin_anew(tmp_path):
    printed = run("fine_tuning.py", tmp_path)
    (tuned,) = numbers_after("fine-tuned: force error at the other level", printed)
    (scratch,) = numbers_after("from-scratch: force error at the other level", printed)
    assert tuned < 0.8 * scratch


@pytest.mark.thorough
def test_active_learning_makes_errors_smaller(tmp_path):
    printed = run("active_learning.py", tmp_path)
    mean, largest = numbers_after("spread on the worst atom of a test frame:", printed)
    assert 0 < mean < largest
    (before,), (after,) = (
        numbers_after(f"{name}: force error of the committee", printed) for name in ("before", "after")
    )
    assert after < before


def test_every_example_is_run_here():
    tests = Path(__file__).read_text()
    scripts = [path.name for path in (ROOT / "examples").glob("*.py")]
    assert [script for script in scripts if f'run("{script}"' not in tests] == []


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_examples_are_short(script):
    assert len((ROOT / "examples" / script).read_text().splitlines()) <= 110
