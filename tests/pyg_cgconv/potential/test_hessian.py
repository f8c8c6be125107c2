"""Second derivatives and stresses of atoms, by ASE's calculator."""

import numpy as np
import pytest
import torch

from pyg_cgconv import Potential

pytest.importorskip("ase")
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.phonons import Phonons
from ase.vibrations import VibrationsData

from pyg_cgconv import ASECalculator

CUTOFF = 3.0


@pytest.fixture(scope="module")
def potential():
    torch.manual_seed(1)
    size = dict(channels=2, lmax=1, layers=2, num_radial=3, radial_hidden=(4,), avg_num_neighbors=4.0)
    return Potential(["H", "C", "O"], CUTOFF, **size, scale=100.0, dtype="float64")


@pytest.fixture
def calculator(potential):
    return ASECalculator(potential)


def molecule():
    return Atoms(
        "HCOHCH", positions=1.4 * np.arange(6)[:, None] * [0.8, 0.1, 0.0] + np.random.default_rng(0).random((6, 3))
    )


def crystal():
    """Three atoms in a cell smaller than the cutoff."""
    rng = np.random.default_rng(1)
    return Atoms("HCO", scaled_positions=rng.random((3, 3)), cell=2.6 * np.eye(3) + 0.4 * rng.random((3, 3)), pbc=True)


def slab():
    atoms = crystal()
    atoms.cell[2], atoms.pbc = (0.0, 0.0, 20.0), (True, True, False)
    return atoms


STRUCTURES = [molecule, crystal, slab]


def slopes_of_forces(calculator, atoms, step=1e-4):
    found = np.zeros((len(atoms), 3, len(atoms), 3))
    for atom in range(len(atoms)):
        for axis in range(3):
            for sign in (1, -1):
                moved = atoms.copy()
                moved.positions[atom, axis] += sign * step
                found[atom, axis] -= sign * calculator.get_forces(moved) / (2 * step)
    return found


# Hessian


@pytest.mark.parametrize("structure", STRUCTURES)
def test_hessian_is_the_slope_of_the_forces(calculator, structure):
    atoms = structure()
    expected = slopes_of_forces(calculator, atoms)
    found = calculator.get_hessian(atoms)
    assert found.shape == (len(atoms), 3, len(atoms), 3)
    assert abs(expected).max() > 1.0
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("chunk_size", [1, 4, 100])
def test_chunks_change_nothing(calculator, chunk_size):
    atoms = crystal()
    expected = calculator.get_hessian(atoms)
    np.testing.assert_allclose(calculator.get_hessian(atoms, chunk_size=chunk_size), expected, rtol=0, atol=1e-11)


def test_rows_at_a_time_are_those_asked_for_or_have_a_number_of_pairs(calculator, monkeypatch):
    chosen, jacrev = [], torch.func.jacrev

    def noted(function, **options):
        chosen.append(options["chunk_size"])
        return jacrev(function, **options)

    monkeypatch.setattr("torch.func.jacrev", noted)
    monkeypatch.setattr("pyg_cgconv.potential._calculator.HESSIAN_PAIRS", 500)
    for chunk_size in (2, None):
        calculator.get_hessian(crystal(), chunk_size=chunk_size)
    assert chosen == [2, 500 // calculator.neighbors(crystal()).num_edges]
    assert chosen[1] > 1


def test_hessian_is_symmetric_and_does_not_change_with_translation(calculator):
    matrix = calculator.get_hessian(molecule()).reshape(18, 18)
    np.testing.assert_array_equal(matrix, matrix.T)
    for axis in range(3):
        translation = np.tile(np.eye(3)[axis], 6)
        np.testing.assert_allclose(matrix @ translation, 0.0, atol=1e-9)


def test_hessian_is_what_ase_takes(calculator):
    atoms = molecule()
    energies = VibrationsData(atoms, calculator.get_hessian(atoms)).get_energies()
    assert energies.shape == (18,)
    assert (abs(energies) < 1e-5).sum() >= 3  # translations


@pytest.mark.slow
def test_force_constants_are_those_of_ase_phonons(calculator, tmp_path):
    """Of the first cell of a supercell with all others, by ASE's finite displacements."""
    atoms, cells = crystal(), (2, 2, 2)
    phonons = Phonons(atoms, calculator, supercell=cells, delta=1e-3, name=tmp_path / "phonons")
    phonons.run()
    phonons.read(acoustic=False, symmetrize=0)
    expected = phonons.get_force_constant()  # (cells, 9, 9), of each cell with the one that was displaced
    rows = ASECalculator(calculator.potential).get_hessian(atoms.repeat(cells)).reshape(8, 9, 8, 9)[:, :, 0]
    found = rows.transpose(0, 2, 1)
    assert abs(expected).max() > 1.0
    np.testing.assert_allclose(found, expected, atol=1e-4 * abs(expected).max())


def test_atoms_of_the_last_calculation_are_taken(calculator):
    atoms = molecule()
    with pytest.raises(ValueError, match="atoms: missing"):
        calculator.get_hessian()
    calculator.get_potential_energy(atoms)
    np.testing.assert_array_equal(calculator.get_hessian(), calculator.get_hessian(atoms))


def test_results_of_the_calculation_before_stay(calculator):
    atoms = molecule()
    atoms.calc = calculator
    forces = atoms.get_forces()
    calculator.get_hessian(crystal())
    np.testing.assert_array_equal(atoms.get_forces(), forces)


def test_float32_gives_a_few_digits(potential, calculator):
    atoms = molecule()
    found, expected = ASECalculator(potential, dtype="float32").get_hessian(atoms), calculator.get_hessian(atoms)
    assert 1e-9 < abs(found - expected).max() < 1e-4 * abs(expected).max()


def test_hessian_of_no_atoms_and_of_one(calculator):
    assert calculator.get_hessian(Atoms()).shape == (0, 3, 0, 3)
    assert calculator.get_hessian(Atoms("C")).tolist() == np.zeros((1, 3, 1, 3)).tolist()


def test_mistakes_are_named(calculator):
    with pytest.raises(ValueError, match="chunk_size: expected a positive number of rows, got 0"):
        calculator.get_hessian(molecule(), chunk_size=0)
    with pytest.raises(ValueError, match="does not know Xe"):
        calculator.get_hessian(Atoms("Xe"))


# Stresses of atoms


@pytest.mark.parametrize("structure", [crystal, slab])
def test_stresses_of_atoms_sum_to_the_stress(calculator, structure):
    atoms = structure()
    stresses = calculator.get_stresses(atoms)
    assert stresses.shape == (len(atoms), 6)
    assert abs(stresses).max() > 1e-3
    np.testing.assert_allclose(stresses.sum(axis=0), calculator.get_stress(atoms), rtol=1e-10, atol=1e-12)


def test_stresses_of_two_molecules_are_those_of_each(calculator):
    first, second = molecule(), Atoms("CO", positions=[[0.0, 0.0, 0.0], [1.1, 0.3, 0.0]])
    for atoms in (first, second):
        atoms.cell = 40.0 * np.eye(3)
    both = first.copy()
    both += Atoms(second.symbols, positions=second.positions + 15.0)
    stresses = calculator.get_stresses(both)
    np.testing.assert_allclose(stresses[:6].sum(axis=0), calculator.get_stress(first), rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(stresses[6:].sum(axis=0), calculator.get_stress(second), rtol=1e-9, atol=1e-13)


def test_atoms_of_a_pair_have_half_of_its_virial(calculator):
    pair = Atoms("CO", positions=[[0.0, 0.0, 0.0], [1.2, 0.0, 0.0]], cell=20.0 * np.eye(3))
    force = calculator.get_forces(pair)[1, 0]
    expected = -0.5 * 1.2 * force / 20.0**3  # of each, along the pair
    np.testing.assert_allclose(calculator.get_stresses(pair)[:, 0], expected, rtol=1e-10)
    np.testing.assert_allclose(calculator.get_stresses(pair)[:, 1:], 0.0, atol=1e-12)


def test_stresses_of_a_batch_are_those_of_its_structures(potential):
    from torch_geometric.data import Batch, Data

    from pyg_cgconv import RadiusGraph

    def graph(atoms):
        tensors = {"z": atoms.numbers, "pos": atoms.positions, "cell": atoms.cell.array[None]}
        return RadiusGraph(CUTOFF)(Data(**{name: torch.tensor(value) for name, value in tensors.items()}))

    graphs = [graph(crystal()), graph(crystal().repeat((2, 1, 1)))]
    options = dict(compute_forces=False, compute_stresses=True, create_graph=False)
    together = potential(Batch.from_data_list(graphs), **options)
    alone = torch.cat([potential(single, **options)["stresses"] for single in graphs])
    torch.testing.assert_close(together["stresses"], alone)
    assert "stress" not in together


def test_stresses_need_a_volume(calculator):
    with pytest.raises(PropertyNotImplementedError, match="stresses: defined where the cell has a volume"):
        calculator.get_stresses(molecule())
