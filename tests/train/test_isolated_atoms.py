"""`python -m train frames` on files with frames of isolated atoms."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from pyg_cgconv import Potential
from train.cli import main
from train.frames import FramesOptions, read_splits
from train.isolated_atoms import IsolatedAtom, describe_isolated, isolated_energies

CUTOFF = 4.0
ENERGIES = {"Al": -500.0, "Cu": -1000.0}
TINY = (
    "--cutoff 4 --channels 4 --lmax 1 --layers 1 --products false --radial_species false --radial_hidden [8] "
    "--batch_size 4 --max_epochs 1 --device cpu "
    "--progress false --threads 1"
)

pytestmark = pytest.mark.usefixtures("no_plots")


def alloys(count: int, seed: int = 0) -> list[Atoms]:
    """Shaken crystals of copper and aluminium that are bound by a few eV for each atom."""
    random = np.random.default_rng(seed)
    made = []
    for number in range(count):
        atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
        atoms.symbols[: number % 3] = "Al"
        atoms.rattle(0.05, rng=random)
        reference = LennardJones(sigma=2.3, epsilon=0.5, rc=5.0, smooth=True)
        results = {name: reference.get_property(name, atoms) for name in ("energy", "forces", "stress")}
        results["energy"] += sum(ENERGIES[symbol] for symbol in atoms.symbols)
        atoms.calc = SinglePointCalculator(atoms, **results)
        made.append(atoms)
    return made


def isolated(symbol: str, energy: float | None = None, length: float = 20.0, **results) -> Atoms:
    """An atom alone in its cell, without forces and stress unless there are ``results``."""
    atoms = Atoms(symbol, [(0, 0, 0)], cell=[length] * 3, pbc=True)
    energy = ENERGIES[symbol] if energy is None else energy
    atoms.calc = SinglePointCalculator(atoms, energy=energy, **results)
    return atoms


def written(path, *images) -> str:
    write(path, images)
    return str(path)


def split(train_file, **options):
    return read_splits(FramesOptions(train_file, **options), CUTOFF)


def trained_shifts(folder, *arguments: str) -> dict[str, float]:
    main(["frames", "--run_dir", str(folder), *arguments, *TINY.split()])
    return shifts(folder)


def shifts(folder) -> dict[str, float]:
    hyperparameters = Potential.load(folder / "potential.pt").hyperparameters
    symbols = ["Al" if number == 13 else "Cu" for number in hyperparameters["species"]]
    return dict(zip(symbols, hyperparameters["shift"], strict=True))


# === the energy reference ===


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder and metrics of a run."""
    folder = tmp_path_factory.mktemp("run")
    file = written(folder / "frames.xyz", isolated("Cu"), *alloys(12), isolated("Al"))
    sizes = ["--val_size", "2", "--test_size", "3"]
    return folder / "run", main(
        ["frames", "--train_file", file, "--run_dir", str(folder / "run"), *sizes, *TINY.split()]
    )


@pytest.mark.slow
def test_isolated_atoms_give_the_energies_of_their_elements(finished):
    assert shifts(finished[0]) == ENERGIES


@pytest.mark.slow
def test_isolated_atoms_do_not_count(finished):
    assert finished[1]["frames"] == {"train": 7, "validation": 2, "test": 3}


@pytest.mark.slow
def test_the_log_says_what_was_taken(tmp_path, capsys):
    file = written(tmp_path / "frames.xyz", isolated("Cu"), isolated("Al"), *alloys(6), isolated("He", -2.0))
    found = trained_shifts(tmp_path / "run", "--train_file", file, "--atom_energies", "{Al: -501.0}")
    assert found == {"Al": -501.0, "Cu": -1000.0}
    printed = capsys.readouterr().out
    assert "isolated atoms: 3 frames, left out of training, validation and test" in printed
    assert "energies are taken: Cu -1000.0000 eV\n" in printed
    assert "atom_energies goes before that of Al" in printed
    assert "not learned, because no other training frame holds it: He" in printed


@pytest.mark.slow
def test_elements_without_an_isolated_atom_are_fitted(tmp_path):
    """To what the others leave: with Cu known, the least squares of one variable."""
    frames = alloys(9)
    files = ["--train_file", written(tmp_path / "train.xyz", isolated("Cu"), *frames)]
    for number, option in enumerate(("val_file", "test_file"), 1):
        files += [f"--{option}", written(tmp_path / f"{option}.xyz", *alloys(3, seed=number))]
    found = trained_shifts(tmp_path / "run", *files)
    aluminium = np.array([(atoms.numbers == 13).sum() for atoms in frames])
    left = [atoms.get_potential_energy() + 1000.0 * (atoms.numbers == 29).sum() for atoms in frames]
    assert found["Cu"] == -1000.0
    assert found["Al"] == pytest.approx(aluminium @ left / (aluminium @ aluminium), rel=1e-12)
    assert abs(found["Al"] + 500.0) > 1.0


@pytest.mark.slow
def test_a_resumed_run_has_the_same_frames_and_energies(finished):
    folder, before = finished
    after = main(["frames", "--resume", str(folder), "--max_epochs", "2"])
    assert (after["frames"], after["epochs"]) == (before["frames"], 2)
    assert shifts(folder) == ENERGIES


@pytest.mark.slow
def test_a_run_folder_repeats_its_errors_without_isolated_atoms(finished, tmp_path):
    folder, _ = finished
    found = main(["evaluate", str(folder), "--device", "cpu", "--run_dir", str(tmp_path / "out")])
    assert found["frames"] == 3


@pytest.mark.slow
def test_files_of_isolated_atoms_can_be_evaluated(finished, tmp_path):
    """A potential gives an isolated atom the energy of its element."""
    file = written(tmp_path / "atoms.xyz", isolated("Cu", -999.0), isolated("Al", -499.0))
    found = main(["evaluate", str(finished[0]), "--data", file, "--device", "cpu", "--run_dir", str(tmp_path / "out")])
    assert found["errors"]["energy_mae_meV"] == pytest.approx(1000.0)


@pytest.mark.slow
def test_contradictions_are_refused_by_name(tmp_path):
    files = ["--train_file", written(tmp_path / "train.xyz", isolated("Cu"), *alloys(6))]
    files += ["--val_file", written(tmp_path / "val.xyz", *alloys(3, seed=1), isolated("Cu", -1000.5))]
    message = r"atoms of Cu have different energies, -1000\.0 eV \(.*train\.xyz: frame 0\) and -1000\.5 eV \(.*val\.xyz"
    with pytest.raises(ValueError, match=message + r": frame 3\): .*--atom_energies"):
        trained_shifts(tmp_path / "refused", *files)
    chosen = ["--atom_energies", "{Cu: -1000.25, Al: -500.0}"]
    assert trained_shifts(tmp_path / "chosen", *files, *chosen)["Cu"] == -1000.25


def test_frames_that_agree_are_one_energy():
    atoms = [IsolatedAtom("Cu", energy, "") for energy in (-1000.0, -1000.0004, -1000.0)]
    assert isolated_energies(atoms, {}) == {"Cu": -1000.0}
    assert isolated_energies(atoms, {"Cu": -1.0}) == {}


def test_atoms_of_unlearned_elements_only_are_described():
    described = describe_isolated([IsolatedAtom("He", -2.0, "")], {}, ["Al", "Cu"])
    assert described.splitlines()[1:] == ["  not learned, because no other training frame holds it: He"]


# === which frames are isolated atoms ===


def test_isolated_atoms_stay_out_of_all_files(tmp_path):
    files = [written(tmp_path / f"{n}.xyz", isolated("Cu"), *alloys(2 + n, seed=n), isolated("Al")) for n in range(3)]
    splits = split(files[0], val_file=files[1], test_file=files[2])
    assert splits.sizes() == {"train": 2, "validation": 3, "test": 4}
    assert [atom.symbol for atom in splits.isolated] == ["Cu", "Al"] * 3


def test_sizes_are_those_of_the_frames_that_are_left(tmp_path):
    file = written(tmp_path / "frames.xyz", *(isolated("Cu") for _ in range(10)), *alloys(10))
    assert split(file, val_size=0.2, test_size=0.3).sizes() == {"train": 5, "validation": 2, "test": 3}
    with pytest.raises(ValueError, match="10 frames, of which 10 are to be held out"):
        split(file, val_size=5, test_size=5)


def test_isolated_atoms_leave_the_draw_as_it_is(tmp_path):
    frames = alloys(10)
    without = split(written(tmp_path / "without.xyz", *frames))
    among = split(written(tmp_path / "among.xyz", *frames[:4], isolated("Cu"), *frames[4:]))
    assert torch.equal(without.test[0].pos, among.test[0].pos)
    assert torch.equal(without.validation[0].pos, among.validation[0].pos)


def test_an_atom_that_sees_its_images_is_a_crystal(tmp_path):
    near, far = isolated("Cu", length=CUTOFF - 0.01), isolated("Cu", length=CUTOFF + 0.01)
    splits = split(written(tmp_path / "frames.xyz", near, far, *alloys(8)), labels=["energy", "forces"])
    assert sum(splits.sizes().values()) == 9
    assert [atom.place for atom in splits.isolated] == [f"{tmp_path / 'frames.xyz'}: frame 1"]


def test_a_molecule_s_atom_without_a_cell_is_isolated(tmp_path):
    atom = Atoms("Cu", [(0, 0, 0)])
    atom.calc = SinglePointCalculator(atom, energy=-1000.0)
    assert len(split(written(tmp_path / "frames.xyz", atom, *alloys(8))).isolated) == 1


def test_what_the_file_calls_it_does_not_matter(tmp_path):
    named, bulk_frame = isolated("Cu"), alloys(1)[0]
    named.info["config_type"], bulk_frame.info["config_type"] = "bulk", "IsolatedAtom"
    splits = split(written(tmp_path / "frames.xyz", named, bulk_frame, *alloys(8, seed=1)))
    assert (len(splits.isolated), sum(splits.sizes().values())) == (1, 9)


def test_labels_of_isolated_atoms_ask_none_of_others(tmp_path):
    frames = alloys(8)
    for atoms in frames:
        del atoms.calc.results["stress"]
    atom = isolated("Cu", forces=np.zeros((1, 3)), stress=np.zeros(6))
    splits = split(written(tmp_path / "frames.xyz", atom, *frames))
    assert all(frame.stress.isnan().all() for frame in splits.train)


def test_labels_of_others_are_not_asked_of_isolated_atoms(tmp_path):
    splits = split(written(tmp_path / "frames.xyz", isolated("Cu"), *alloys(8)))
    assert not any(frame.stress.isnan().any() for frame in (*splits.train, *splits.validation, *splits.test))


def test_cached_frames_are_the_same(tmp_path):
    file = written(tmp_path / "frames.xyz", isolated("Cu"), *alloys(8))
    read, cached = (split(file, cache=tmp_path / "cache") for _ in range(2))
    assert (read.sizes(), read.isolated) == (cached.sizes(), cached.isolated)


def test_files_of_isolated_atoms_may_stand_beside_others(tmp_path):
    files = [written(tmp_path / "atoms.xyz", isolated("Cu")), written(tmp_path / "frames.xyz", *alloys(8))]
    assert sum(split(files).sizes().values()) == 8


@pytest.mark.parametrize("option", ["train_file", "val_file", "test_file"])
def test_nothing_but_isolated_atoms_is_refused(tmp_path, option):
    files = {"train_file": written(tmp_path / "frames.xyz", *alloys(8))}
    files[option] = written(tmp_path / "atoms.xyz", isolated("Cu"), isolated("Al"))
    with pytest.raises(ValueError, match=rf"{option}: .*atoms\.xyz holds 2 isolated atoms and nothing else; .*: add"):
        split(**files)


def test_an_isolated_element_is_not_learned_for_the_test(tmp_path):
    """Its energy alone does not tell how its atoms interact."""
    (foreign,) = alloys(1)
    foreign.symbols[0] = "Ni"
    foreign.calc.atoms = foreign.copy()
    files = ["--train_file", written(tmp_path / "train.xyz", isolated("Ni", -1500.0), *alloys(6))]
    files += ["--test_file", written(tmp_path / "test.xyz", foreign)]
    with pytest.raises(ValueError, match=r"test frames hold atomic numbers \[28\]"):
        trained_shifts(tmp_path / "run", *files)
