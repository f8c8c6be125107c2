"""Neighbour lists that last, as the calculator uses them."""

import numpy as np
import pytest

pytest.importorskip("ase")
from ase import Atoms

from .for_calculators import CUTOFF, SHIFT, SKIN, called_directly, close, crystal, molecule, pair, slab


def test_list_is_used_again_while_atoms_move_little(calculator):
    atoms = molecule()
    for _ in range(5):
        calculator.get_forces(atoms)
        atoms.positions[0, 0] += 0.19 * SKIN / 2
    assert calculator.neighbors.builds == 1


@pytest.mark.parametrize("structure", [molecule, crystal, slab])
def test_used_list_gives_what_a_new_one_gives(calculator, fresh, structure):
    atoms = structure()
    before = calculator.get_forces(atoms)
    direction = np.random.default_rng(2).standard_normal((len(atoms), 3))
    atoms.positions += 0.49 * SKIN * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    forces = calculator.get_forces(atoms)
    assert calculator.neighbors.builds == 1
    assert abs(forces - before).max() > 0.1
    close(forces, fresh.get_forces(atoms))
    close(calculator.get_potential_energy(atoms), fresh.get_potential_energy(atoms))


def test_neighbours_that_come_into_reach_are_seen_by_the_used_list(calculator, fresh):
    """From beyond the cutoff to within it, by less than half the skin each."""
    atoms = pair(CUTOFF + 0.6 * SKIN)
    assert calculator.get_potential_energy(atoms) == SHIFT["C"] + SHIFT["O"]
    atoms.positions[:, 0] += [0.49 * SKIN, -0.49 * SKIN]
    energy = calculator.get_potential_energy(atoms)
    assert calculator.neighbors.builds == 1
    assert abs(energy - SHIFT["C"] - SHIFT["O"]) > 1e-5
    close(energy, fresh.get_potential_energy(atoms), rtol=0, atol=1e-9)


def test_neighbours_from_beyond_the_skin_are_seen(calculator, fresh):
    """Each comes nearer by less than the skin, but by more than half of it."""
    atoms = pair(CUTOFF + 1.1 * SKIN)
    calculator.get_potential_energy(atoms)
    atoms.positions[:, 0] += [0.95 * SKIN, -0.95 * SKIN]
    energy = calculator.get_potential_energy(atoms)
    assert abs(energy - SHIFT["C"] - SHIFT["O"]) > 1e-5
    close(energy, fresh.get_potential_energy(atoms), rtol=0, atol=1e-9)


def test_pairs_between_cutoff_and_skin_count_nothing(calculator):
    atoms = pair(CUTOFF + 0.5 * SKIN)
    forces = calculator.get_forces(atoms)
    assert calculator.neighbors(atoms).num_edges == 2
    assert calculator.get_potential_energy(atoms) == SHIFT["C"] + SHIFT["O"]
    assert (forces == 0).all()


def deform(atoms, deformation):
    atoms.set_cell(atoms.cell.array @ deformation, scale_atoms=True)


def test_list_is_used_again_while_the_cell_changes_little(calculator, fresh):
    atoms, rng = crystal(), np.random.default_rng(2)
    before = calculator.get_stress(atoms)
    for _ in range(3):
        deform(atoms, np.eye(3) + 0.005 * rng.standard_normal((3, 3)))
        atoms.positions += 0.01 * SKIN * rng.standard_normal(atoms.positions.shape)
        stress = calculator.get_stress(atoms)
        close(stress, fresh.get_stress(atoms))
        close(calculator.get_forces(atoms), fresh.get_forces(atoms))
    assert calculator.neighbors.builds == 1
    assert abs(stress - before).max() > 1e-3


def images(distance):
    """An atom whose nearest images are at this distance."""
    return Atoms("C", cell=3 * [distance], pbc=True)


@pytest.mark.parametrize(("start", "builds"), [(CUTOFF + 0.2 * SKIN, 1), (CUTOFF + 1.1 * SKIN, 2)])
def test_images_that_a_smaller_cell_brings_into_reach_are_seen(calculator, fresh, start, builds):
    """From beyond the cutoff to within it: of the list, or from beyond its skin."""
    atoms = images(start)
    assert calculator.get_potential_energy(atoms) == SHIFT["C"]
    deform(atoms, np.eye(3) * (CUTOFF - 0.2 * SKIN) / start)
    energy = calculator.get_potential_energy(atoms)
    assert calculator.neighbors.builds == builds
    assert abs(energy - SHIFT["C"]) > 1e-5
    close(energy, fresh.get_potential_energy(atoms), rtol=0, atol=1e-9)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_cell_that_is_not_finite_is_an_error_also_of_a_used_list(calculator, number):
    atoms = crystal()
    calculator.get_forces(atoms)
    atoms.cell.array[0, 0] = number
    with pytest.raises(ValueError, match="cell: expected finite"):
        calculator.get_forces(atoms)


def test_a_molecule_in_a_cell_without_volume(calculator):
    """Which changes, as a box around it may."""
    atoms = molecule()
    expected = calculator.get_forces(atoms)
    for height in (5.0, 6.0):
        atoms.cell = [[5, 0, 0], [5, 0, 0], [0, 0, height]]
        close(calculator.get_forces(atoms), expected)
    with pytest.raises(Exception, match="volume"):
        calculator.get_stress(atoms)


@pytest.mark.parametrize("charge", [None, "one", [1.0, 2.0]])
def test_a_charge_that_is_no_number_is_named(calculator, charge):
    atoms = molecule()
    atoms.info["charge"] = charge
    with pytest.raises(ValueError, match=r"atoms.info\['charge'\]: expected the total charge"):
        calculator.get_forces(atoms)


def moved_far(atoms):
    atoms.positions[1] += [0.0, 0.51 * SKIN, 0.0]


def smaller_cell(atoms):
    atoms.set_cell(0.9 * atoms.cell.array)


def strained(atoms):
    atoms.set_cell(1.001 * atoms.cell.array, scale_atoms=True)


def less_periodic(atoms):
    atoms.pbc = (True, True, False)


def other_species(atoms):
    atoms.numbers[:2] = atoms.numbers[1::-1]


def exchanged_positions(atoms):
    atoms.positions[:2] = atoms.positions[1::-1]


def another_atom(atoms):
    atoms.append("H")
    atoms.positions[-1] = [0.0, 1.0, 1.0]


def one_atom_less(atoms):
    del atoms[1]


CHANGES = [
    moved_far,
    smaller_cell,
    strained,
    less_periodic,
    other_species,
    exchanged_positions,
    another_atom,
    one_atom_less,
]


@pytest.mark.parametrize("change", [change for change in CHANGES if change is not strained])
def test_list_is_made_again_after(calculator, change):
    atoms = crystal()
    calculator.get_forces(atoms)
    change(atoms)
    calculator.get_forces(atoms)
    assert calculator.neighbors.builds == 2


@pytest.mark.parametrize("change", CHANGES)
def test_forces_are_right_after(potential, calculator, change):
    atoms = crystal()
    before = calculator.get_forces(atoms)
    change(atoms)
    forces = calculator.get_forces(atoms)
    assert forces.shape != before.shape or abs(forces - before).max() > 1e-4
    close(forces, called_directly(potential, atoms)["forces"])


def test_small_steps_add_up(calculator):
    atoms = crystal()
    for _ in range(3):
        calculator.get_forces(atoms)
        atoms.positions[1, 2] += 0.2 * SKIN
    calculator.get_forces(atoms)
    assert calculator.neighbors.builds == 2


def test_without_a_skin_every_move_makes_a_list(fresh):
    atoms = molecule()
    for _ in range(3):
        fresh.get_forces(atoms)
        atoms.positions[0, 0] += 1e-6
    assert fresh.neighbors.builds == 3
