"""`python -m train frames` on files that ASE writes: crystals with stresses, molecules without, energies only."""

import json
import re

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from pyg_cgconv import ASECalculator
from train.cli import main
from train.division import divide
from train.frames import FramesOptions, read_splits

CUTOFF = 4.0
TINY = (
    "--cutoff 4 --channels 4 --lmax 1 --layers 1 --products false --radial_species false --radial_hidden [8] "
    "--batch_size 4 --max_epochs 2 --device cpu "
    "--progress false --threads 1"
)


pytestmark = pytest.mark.usefixtures("no_plots")


def labelled(atoms: Atoms, stress: bool) -> Atoms:
    """``atoms`` with the results of a Lennard-Jones potential, of which ASE gives the stress."""
    reference = LennardJones(sigma=2.3, epsilon=0.3, rc=5.0, smooth=True)
    results = {"energy": reference.get_potential_energy(atoms), "forces": reference.get_forces(atoms)}
    if stress:
        results["stress"] = reference.get_stress(atoms)
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def crystals(count: int, seed: int = 0) -> list[Atoms]:
    """Strained and shaken copper, in cells of one and of eight atoms."""
    random = np.random.default_rng(seed)
    made = []
    for number in range(count):
        atoms = bulk("Cu", "fcc", a=3.6).repeat(1 + number % 2)
        atoms.set_cell(atoms.cell @ (np.eye(3) + random.normal(scale=0.02, size=(3, 3))), scale_atoms=True)
        atoms.rattle(0.05, rng=random)
        made.append(labelled(atoms, stress=True))
    return made


def molecules(count: int, seed: int = 0) -> list[Atoms]:
    random = np.random.default_rng(seed)
    made = [molecule(("H2O", "CH4")[number % 2]) for number in range(count)]
    for atoms in made:
        atoms.rattle(0.05, rng=random)
    return [labelled(atoms, stress=False) for atoms in made]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    write(folder / "copper.xyz", crystals(20))
    write(folder / "molecules.xyz", molecules(6))
    write(folder / "test.xyz", crystals(4, seed=1))
    return folder


@pytest.fixture(scope="module")
def finished(files):
    """Folder and metrics of a training on crystals with stresses and on molecules without."""
    names = f"[{files / 'copper.xyz'}, {files / 'molecules.xyz'}]"
    folder = files / "run"
    command = ["frames", "--train_file", names, "--test_file", str(files / "test.xyz"), "--run_dir", str(folder)]
    return folder, main([*command, *TINY.split()])


@pytest.mark.slow
def test_command_reports_errors_of_energies_forces_and_stresses(finished):
    folder, metrics = finished
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert metrics["frames"] == {"train": 20, "validation": 3, "test": 4} | {"train": 23, "validation": 3}
    assert {"energy_mae_meV", "forces_mae_meV_per_A", "stress_mae_meV_per_A3", "stress_mae_GPa"} <= metrics[
        "test"
    ].keys()
    assert metrics["test"]["species"].keys() == {"Cu"}
    assert (folder / "parity.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_reported_errors_are_those_of_ase(finished, files):
    """Read and compared by ASE, with a neighbour list of its own."""
    folder, metrics = finished
    calculator = ASECalculator(folder / "potential.pt")
    errors = {"forces": [], "stress": []}
    for reference in crystals(4, seed=1):
        atoms = reference.copy()
        atoms.calc = calculator
        errors["forces"].append(atoms.get_forces() - reference.get_forces())
        errors["stress"].append(atoms.get_stress(voigt=False) - reference.get_stress(voigt=False))
    for name, unit in (("forces", "meV_per_A"), ("stress", "meV_per_A3")):
        expected = 1000 * np.abs(np.concatenate(errors[name])).mean()
        assert metrics["test"][f"{name}_mae_{unit}"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_stress_is_learned(files):
    """With nothing but the stress to fit, its error falls."""
    command = ["frames", "--train_file", str(files / "copper.xyz"), "--test_file", str(files / "test.xyz")]
    weights = "--energy_weight 0 --forces_weight 0 --stress_weight 1 --lr 0.1 --warmup_steps 5"
    metrics = main(
        [*command, "--run_dir", str(files / "stress"), *TINY.split(), *weights.split(), "--max_epochs", "25"]
    )
    assert metrics["test"]["stress_mae_GPa"] < 0.7 * metrics["baseline"]["stress_mae_GPa"]


@pytest.mark.slow
def test_energies_alone_can_be_fitted(files):
    command = ["frames", "--train_file", str(files / "copper.xyz"), "--labels", "[energy]", "--test_size", "4"]
    metrics = main([*command, "--run_dir", str(files / "energies"), *TINY.split()])
    assert metrics["frames"]["test"] == 4
    assert "energy_mae_meV" in metrics["test"]
    assert not any(name.startswith(("forces", "stress")) for name in metrics["test"])


@pytest.mark.slow
def test_test_frames_may_have_no_forces(files):
    """Those of perfect crystals are zero, and nothing is relative to them."""
    perfect = [labelled(bulk("Cu", "fcc", a=a, cubic=True), stress=True) for a in (3.5, 3.6)]
    for atoms in perfect:
        atoms.calc.results["forces"][:] = 0.0
    write(files / "perfect.xyz", perfect)
    command = ["frames", "--train_file", str(files / "copper.xyz"), "--test_file", str(files / "perfect.xyz")]
    metrics = main([*command, "--run_dir", str(files / "perfect"), *TINY.split()])
    assert metrics["baseline"]["forces_mae_meV_per_A"] == 0.0
    assert "forces_mae_percent" not in metrics["test"]


def test_structures_in_two_files_are_counted(files):
    options = FramesOptions(str(files / "copper.xyz"), test_file=str(files / "copper.xyz"))
    with pytest.warns(UserWarning, match=r"18 of the test frames are training frames \(copper\.xyz\)"):
        read_splits(options, CUTOFF)


def test_a_virial_is_learned_as_a_stress(files):
    images = crystals(8, seed=5)
    for atoms in images:
        atoms.info["REF_virial"] = (-atoms.get_volume() * atoms.get_stress(voigt=False)).ravel()
        del atoms.calc.results["stress"]
    write(files / "virials.xyz", images)
    splits = read_splits(FramesOptions(str(files / "virials.xyz"), virial_key="REF_virial"), CUTOFF)
    expected = sorted(crystal.get_stress()[0] for crystal in crystals(8, seed=5))
    found = sorted(frame.stress[0, 0, 0].item() for frame in (*splits.train, *splits.validation, *splits.test))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.slow
def test_a_run_goes_on_by_its_folder_alone(finished):
    folder, before = finished
    after = main(["frames", "--resume", str(folder), "--max_epochs", "3"])
    assert (before["epochs"], after["epochs"]) == (2, 3)
    assert after["steps"] == 1.5 * before["steps"]
    assert after["frames"] == before["frames"]


@pytest.mark.slow
def test_what_shapes_the_fit_cannot_change_when_a_run_goes_on(finished):
    folder, _ = finished
    with pytest.raises(ValueError, match=r"channels=8 \(it was 4\), lr=0.5 \(it was 0.02\)"):
        main(["frames", "--resume", str(folder), "--channels", "8", "--lr", "0.5"])


@pytest.mark.slow
def test_a_run_of_another_task_does_not_go_on(finished):
    with pytest.raises(ValueError, match="has task='frames': python -m train frames takes it, not md17"):
        main(["md17", "--resume", str(finished[0])])


def test_only_a_run_can_go_on(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no config\.yaml, so no run that can go on"):
        main(["frames", "--resume", str(tmp_path)])


def test_missing_labels_are_nan_and_cells_have_a_volume(files):
    splits = read_splits(FramesOptions([str(files / name) for name in ("copper.xyz", "molecules.xyz")]), CUTOFF)
    for frame in (*splits.train, *splits.validation, *splits.test):
        periodic = bool(frame.pbc.all())
        assert frame.stress.isnan().all() != periodic
        assert torch.linalg.det(frame.cell).abs().item() > 0
        assert frame.edge_shift.shape == (frame.num_edges, 3)


def test_frames_are_divided_without_overlap_and_by_the_seed():
    frames = list(range(20))
    train, validation, test = divide(frames, 5, 3, seed=0)
    assert sorted([*train, *validation, *test]) == frames
    assert (len(train), len(validation), len(test)) == (12, 5, 3)
    assert divide(frames, 8, 3, seed=0)[2] == test
    assert divide(frames, 5, 3, seed=1)[2] != test


def test_files_of_their_own_leave_the_training_frames_alone(files):
    names = (str(files / name) for name in ("copper.xyz", "test.xyz", "molecules.xyz"))
    options = FramesOptions(*names)
    assert read_splits(options, CUTOFF).sizes() == {"train": 20, "validation": 4, "test": 6}


def test_frames_without_an_energy_are_not_told_to_leave_it_out(tmp_path):
    """The command would refuse labels without an energy."""
    frames = crystals(4)
    for atoms in frames:
        del atoms.calc.results["energy"]
    write(tmp_path / "forces.xyz", frames)
    with pytest.raises(ValueError, match=r"has no energy.*that serves for charges and dipoles only"):
        main(["frames", "--train_file", str(tmp_path / "forces.xyz")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--val_size", "0"], "val_size=0.0: expected a number of frames"),
        (["--test_size", "2.5"], "test_size=2.5: expected a number of frames"),
        (["--labels", "[forces]"], "expected energy among them"),
        (["--test_size", "30"], "20 frames, of which 32 are to be held out"),
        (["--energy_key", "E_dft"], "has no energy 'E_dft'"),
    ],
)
def test_mistakes_are_named(files, arguments, message):
    with pytest.raises(ValueError, match=message):
        main(["frames", "--train_file", str(files / "copper.xyz"), *arguments])


def without_results(*names: str, cell: bool = True, **info) -> Atoms:
    atoms = crystals(2)[1]
    for name in names:
        del atoms.calc.results[name]
    if not cell:
        atoms.set_cell(None)
        atoms.pbc = False
    atoms.info |= info
    return atoms


WRONG_FRAMES = {
    "asymmetric virial": without_results("stress", virial=np.arange(9.0).reshape(3, 3)),
    "virial without a cell": without_results("stress", virial=np.eye(3), cell=False),
}


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG_FRAMES)
def test_what_an_error_says_of_labels_is_an_option_that_helps(wrong, tmp_path):
    path = tmp_path / "frames.xyz"
    write(path, [*crystals(6), WRONG_FRAMES[wrong]])
    command = ["frames", "--train_file", str(path), "--run_dir", str(tmp_path / "run"), *TINY.split()]
    with pytest.raises(ValueError, match=r"on the command line --labels \[energy") as told:
        main(command)
    option = re.search(r"(--labels) (\[[a-z,]+\])\)$", str(told.value)).groups()
    assert main([*command, *option])["frames"] == {"train": 5, "validation": 1, "test": 1}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the same structures in several parts")
def test_labels_that_validation_lacks_are_named(files):
    command = ["frames", "--train_file", f"[{files / 'copper.xyz'}, {files / 'molecules.xyz'}]", *TINY.split()]
    command += ["--val_file", str(files / "molecules.xyz"), "--run_dir"]
    with pytest.raises(ValueError, match="stress: training frames have labels, validation frames have none"):
        main([*command, str(files / "unvalidated")])
    metrics = main([*command, str(files / "unweighted"), "--stress_weight", "0", "--max_epochs", "1"])
    assert metrics["validation"]["forces_mae_meV_per_A"] > 0


@pytest.mark.slow
def test_elements_that_training_lacks_are_named(files):
    command = ["frames", "--train_file", str(files / "copper.xyz"), "--test_file", str(files / "molecules.xyz")]
    with pytest.raises(ValueError, match=r"test frames hold atomic numbers \[1, 6, 8\]"):
        main([*command, "--run_dir", str(files / "foreign")])
