"""Labels that a file has under several names, under none that ASE knows, or not for single atoms."""

import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from datasets import AtomsFile

HEADER = "Properties=species:S:1:pos:R:3:forces:R:3"


def written(path, *comments, forces=(0.0, 0.1)):
    """Hydrogen molecules, one for each comment."""
    lines = [f"H 0 0 {0.7 * atom} 0 0 {force}\n" for atom, force in enumerate(forces)]
    path.write_text("".join(f"{len(lines)}\n{HEADER} {comment}\n{''.join(lines)}" for comment in comments))
    return path


@pytest.fixture
def xyz(tmp_path):
    return tmp_path / "frames.xyz"


# === energies and forces of several names ===


@pytest.mark.parametrize("name", ["REF_energy", "ref_energy", "dft_energy", "Energy", "TotEnergy", "energy_dft"])
def test_another_energy_is_refused_by_both_names(xyz, name):
    written(xyz, f"energy=-1.5 {name}=-1.5", f"energy=-1.5 {name}=98.5")
    message = rf"frames\.xyz: frame 1 has two labels for the energy, 'energy' and '{name}', .* 100 eV: .*--energy_key"
    with pytest.raises(ValueError, match=message):
        AtomsFile(xyz)


def test_a_charge_that_is_no_number_is_refused(xyz):
    """Though nothing of it is learned: items have it."""
    with pytest.raises(ValueError, match=r"frames\.xyz: frame 1: charge=nan, expected the total charge in e, a number"):
        AtomsFile(written(xyz, "energy=-1.5 charge=1", "energy=-1.5 charge=nan"))
    assert "charge" not in AtomsFile(written(xyz, "energy=-1.5 charge=none"))[0]


@pytest.mark.parametrize(("key", "energy"), [("energy", -1.5), ("REF_energy", 98.5)])
def test_a_key_chooses_among_energies(xyz, key, energy):
    assert AtomsFile(written(xyz, "energy=-1.5 REF_energy=98.5"), energy_key=key)[0].energy.item() == energy


def test_one_energy_under_two_names_is_no_question(xyz):
    written(xyz, "energy=-1.50000000001 REF_energy=-1.5")
    assert AtomsFile(xyz)[0].energy.item() == -1.50000000001


@pytest.mark.parametrize(
    "other", ["free_energy", "kinetic_energy", "energy_per_atom", "formation_energy", "config_energy_weight", "e_hull"]
)
def test_other_quantities_are_no_energies(xyz, other):
    assert AtomsFile(written(xyz, f"energy=-1.5 {other}=3.0"))[0].energy.item() == -1.5


def with_forces(path, **arrays):
    atoms = Atoms("H2", [(0, 0, 0), (0, 0, 0.7)])
    atoms.calc = SinglePointCalculator(atoms, energy=1.0, forces=np.zeros((2, 3)))
    atoms.arrays.update(arrays)
    write(path, atoms)
    return path


def test_other_forces_are_refused_by_both_names(xyz):
    with_forces(xyz, REF_forces=np.full((2, 3), 0.25))
    message = r"frame 0 has two labels for the forces, 'forces' and 'REF_forces', .* 0\.25 eV/Angstrom: .*--forces_key"
    with pytest.raises(ValueError, match=message):
        AtomsFile(xyz)
    assert AtomsFile(xyz, forces_key="REF_forces")[0].forces.tolist() == [[0.25] * 3] * 2
    assert AtomsFile(xyz, forces_key="forces")[0].forces.tolist() == [[0.0] * 3] * 2


def test_labels_that_are_not_read_are_no_question(xyz):
    with_forces(xyz, REF_forces=np.full((2, 3), 0.25))
    assert AtomsFile(xyz, labels=["energy"])[0].energy.item() == 1.0


@pytest.mark.parametrize("name", ["REF_energy", "dft_energy", "DFT_energy", "Energy", "ref_energy", "total_energy"])
def test_an_energy_that_ase_does_not_know_is_proposed(xyz, name):
    with pytest.raises(ValueError, match=rf"has no energy; .*give one, perhaps '{name}', as `energy_key`"):
        AtomsFile(written(xyz, f"{name}=-1.5 comment=x"))


# === single atoms ===


def single_atom(path, comment):
    path.write_text(f"1\nProperties=species:S:1:pos:R:3 {comment}\nH 0 0 0\n")
    return path


def test_a_single_atom_needs_no_forces(tmp_path):
    files = [single_atom(tmp_path / "atom.xyz", "energy=-13.6"), written(tmp_path / "frames.xyz", "energy=-30")]
    assert [frame.forces.tolist() for frame in AtomsFile(files)] == [[[0, 0, 0]], [[0, 0, 0], [0, 0, 0.1]]]


def test_a_single_atom_needs_an_energy(tmp_path):
    with pytest.raises(ValueError, match=r"atom\.xyz: frame 0 has no energy; .*perhaps 'REF_energy',"):
        AtomsFile(single_atom(tmp_path / "atom.xyz", "REF_energy=-13.6"))


def test_forces_of_several_atoms_are_needed_beside_a_single_one(tmp_path):
    files = [written(tmp_path / "atom.xyz", "energy=-13.6", forces=[0.0]), tmp_path / "frames.xyz"]
    files[1].write_text("2\nProperties=species:S:1:pos:R:3 energy=-30\nH 0 0 0\nH 0 0 0.7\n")
    with pytest.raises(ValueError, match=r"frames\.xyz: frame 0 has no forces;"):
        AtomsFile(files)


CELL = 'Lattice="9 0 0 0 9 0 0 0 9"'
STRESS = 'stress="1 0 0 0 2 0 0 0 3"'


@pytest.mark.parametrize("options", [{}, {"labels": ["energy", "forces", "stress"]}, {"stress_key": "stress"}])
def test_a_single_atom_needs_no_stress(tmp_path, options):
    atom = written(tmp_path / "atom.xyz", "energy=-13.6", forces=[0.0])
    alone, crystal = AtomsFile([atom, written(tmp_path / "frames.xyz", f"energy=1 {STRESS} {CELL}")], **options)
    assert alone.stress.isnan().all()
    assert crystal.stress[0].diag().tolist() == [1, 2, 3]


def test_the_stress_of_a_single_atom_asks_none_of_others(tmp_path):
    atom = written(tmp_path / "atom.xyz", f"energy=-13.6 {STRESS} {CELL}", forces=[0.0])
    alone, crystal = AtomsFile([atom, written(tmp_path / "frames.xyz", f"energy=1 {CELL}")])
    assert alone.stress[0].diag().tolist() == [1, 2, 3]
    assert crystal.stress.isnan().all()


def test_files_without_any_stress_get_none(tmp_path):
    atom = written(tmp_path / "atom.xyz", "energy=-13.6", forces=[0.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not any("stress" in frame for frame in AtomsFile([atom, written(tmp_path / "f.xyz", "energy=1")]))
