import json

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms

from pyg_cgconv import CommitteeCalculator, Potential
from train.cli import main
from train.select import PoolFiles, SelectOptions, run
from train.trained import ComputeOptions, ModelFiles

from .conftest import CUTOFF, GEOMETRY, NUMBERS

CPU = ComputeOptions(device="cpu", dtype="float64")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Three potentials with other weights, for which no frame has to be trained on."""
    folder, paths = tmp_path_factory.mktemp("models"), []
    for seed in range(3):
        torch.manual_seed(seed)
        paths.append(folder / f"{seed}.pt")
        size = dict(channels=4, lmax=1, layers=1, radial_hidden=(8,), avg_num_neighbors=4.0)
        Potential(NUMBERS[:3], CUTOFF, **size, scale=20.0, dtype="float64").save(paths[-1])
    return paths


def pool(count: int = 12) -> list[Atoms]:
    """The springs' geometry, further from it from frame to frame."""
    rng = np.random.default_rng(0)
    noise = [0.03 * (1 + number) * rng.normal(size=GEOMETRY.shape) for number in range(count)]
    frames = [Atoms(NUMBERS, GEOMETRY + one) for one in noise]
    for number, atoms in enumerate(frames):
        atoms.info["name"] = f"frame{number}"
    return frames


@pytest.fixture(scope="module")
def expected(models):
    """Spread of the worst atom, and of the energy, by the committee of ASE."""
    calculator, found = CommitteeCalculator(models), []
    for atoms in pool():
        calculator.get_forces(atoms)
        found.append((calculator.results["forces_std"].max(), 1000 * calculator.results["energy_std"] / 5))
    return np.array(found).T


def selected(models, frames, folder, **options):
    ase.io.write(folder / "pool.xyz", frames)
    options = SelectOptions(**{"number": 4, "run_dir": folder / "run", **options})
    summary = run(ModelFiles(models), PoolFiles([folder / "pool.xyz"]), options, CPU)
    assert json.loads((folder / "run" / "select.json").read_text()) == summary
    return summary, folder / "run"


def names(path) -> list[str]:
    return [atoms.info["name"] for atoms in ase.io.read(path, ":")]


@pytest.mark.parametrize(("by", "row"), [("forces", 0), ("energy", 1)])
def test_frames_of_the_largest_spread_are_selected(models, expected, tmp_path, by, row):
    summary, folder = selected(models, pool(), tmp_path, by=by, batch_size=5)
    order = np.argsort(-expected[row])[:4]
    assert names(folder / "selected.xyz") == [f"frame{number}" for number in order]
    assert names(folder / "remaining.xyz") == [f"frame{number}" for number in range(12) if number not in order]
    column = ["forces_spread_eV_per_A", "energy_spread_meV_per_atom"][row]
    np.testing.assert_allclose([frame[column] for frame in summary["frames"]], expected[row], rtol=1e-4)
    assert summary["counts"] == {"selected": 4, "remaining": 8}
    assert not (folder / "excluded.xyz").exists()
    assert [summary["frames"][number]["rank"] for number in order] == [1, 2, 3, 4]


def test_the_two_scores_choose_differently(expected):
    assert set(np.argsort(-expected[0])[:4]) != set(np.argsort(-expected[1])[:4])


def test_structures_are_written_as_they_were(models, tmp_path):
    frames = pool()
    for atoms in frames:
        atoms.arrays["tags"] = np.arange(5)
    _, folder = selected(models, frames, tmp_path)
    written = [*ase.io.read(folder / "selected.xyz", ":"), *ase.io.read(folder / "remaining.xyz", ":")]
    for atoms in written:
        before = frames[int(atoms.info["name"].removeprefix("frame"))]
        np.testing.assert_allclose(atoms.positions, before.positions, atol=1e-8)
        assert (atoms.arrays["tags"] == before.arrays["tags"]).all()
        assert atoms.calc is None


@pytest.mark.slow
def test_near_duplicates_are_passed_over(models, expected, tmp_path):
    frames = pool()
    worst = int(np.argmax(expected[0]))
    copies = [frames[worst].copy() for _ in range(3)]
    for number, atoms in enumerate(copies):
        atoms.positions[0] += 0.001 * number
        atoms.rotate(40 * number, "z")
        atoms.info["name"] = f"copy{number}"
    summary, folder = selected(models, frames + copies, tmp_path)
    chosen = names(folder / "selected.xyz")
    assert sum(name.startswith("copy") or name == f"frame{worst}" for name in chosen) == 1
    assert len(chosen) == 4
    assert summary["counts"]["duplicate"] == 3
    assert len(names(folder / "remaining.xyz")) == 11
    reasons = {frame["reason"] for frame in summary["frames"] if frame["status"] == "duplicate"}
    assert all(f"of {tmp_path / 'pool.xyz'}" in reason for reason in reasons)
    (tmp_path / "all").mkdir()
    all_frames, _ = selected(models, frames + copies, tmp_path / "all", min_difference=0.0)
    assert "duplicate" not in all_frames["counts"]


@pytest.mark.slow
def test_exploding_frames_are_named_and_kept_apart(models, tmp_path, capsys):
    calculator = CommitteeCalculator(models)
    largest = np.array([np.linalg.norm(calculator.get_forces(atoms), axis=1).max() for atoms in pool()])
    limit = np.sort(largest)[-3:-1].mean()  # two are above
    spreads = [calculator.get_property("forces_std", atoms).max() for atoms in pool()]
    exploding = [number for number in range(12) if largest[number] > limit or spreads[number] > limit]
    summary, folder = selected(models, pool(), tmp_path, max_force=float(limit))
    assert 2 <= len(exploding) <= 6
    assert [n for n, frame in enumerate(summary["frames"]) if frame["status"] == "excluded"] == exploding
    assert names(folder / "excluded.xyz") == [f"frame{number}" for number in exploding]
    assert sum(len(names(folder / f"{name}.xyz")) for name in ("selected", "remaining", "excluded")) == 12
    first = f"excluded: frame {exploding[0]} of {tmp_path / 'pool.xyz'}: "
    printed = capsys.readouterr().out
    assert first in printed
    assert f"above max_force={limit:g}" in printed


def test_predictions_that_are_no_numbers_are_excluded(models, tmp_path):
    broken = Potential.load(models[0])
    broken.scale.fill_(float("nan"))
    broken.save(tmp_path / "broken.pt")
    summary, folder = selected([models[1], tmp_path / "broken.pt"], pool(3), tmp_path)
    assert [frame["reason"] for frame in summary["frames"]] == ["energy or forces are not finite"] * 3
    assert summary["frames"][0]["forces_spread_eV_per_A"] is None
    assert len(names(folder / "excluded.xyz")) == 3
    assert (folder / "selected.xyz").read_text() == ""


def test_a_small_pool_is_said_to_be_small(models, tmp_path, capsys):
    summary, _ = selected(models, pool(3), tmp_path)
    assert summary["counts"] == {"selected": 3}
    assert "number=4: no more frames are left" in capsys.readouterr().out


def test_several_files_and_the_command_line(models, tmp_path):
    ase.io.write(tmp_path / "a.xyz", pool()[:5])
    ase.io.write(tmp_path / "b.xyz", pool()[5:])
    words = ["--pool", tmp_path / "a.xyz", tmp_path / "b.xyz", "--number", 2, "--run_dir", tmp_path / "run"]
    summary = main([str(word) for word in ["select", *models, *words, "--device", "cpu"]])
    assert [(frame["file"], frame["frame"]) for frame in summary["frames"]][4:6] == [
        (str(tmp_path / "a.xyz"), 4),
        (str(tmp_path / "b.xyz"), 0),
    ]
    assert len(names(tmp_path / "run" / "selected.xyz")) == 2


def test_mistakes_are_named(models, tmp_path):
    with pytest.raises(ValueError, match="model: got 1, expected two or more"):
        selected(models[:1], pool(), tmp_path)
    with pytest.raises(ValueError, match="number=0: expected a number above 0"):
        SelectOptions(0)
    with pytest.raises(ValueError, match="min_difference=-1: expected 0 or more"):
        SelectOptions(1, min_difference=-1)
    with pytest.raises(ValueError, match="pool: no file given"):
        run(ModelFiles(models), PoolFiles(), SelectOptions(1), CPU)
    with pytest.raises(ValueError, match=r"pool: .*frame 0 holds Xe"):
        selected(models, [Atoms("Xe")], tmp_path)
    assert not (tmp_path / "run").exists()
