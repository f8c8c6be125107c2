import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from torch_geometric.data import Data

from pyg_cgconv import RadiusGraph
from train.near_duplicates import NEAREST, Distinct, fingerprint

CUTOFF = 4.0


def graph(atoms: Atoms) -> Data:
    data = Data(z=torch.tensor(atoms.numbers), pos=torch.tensor(atoms.positions))
    if atoms.pbc.any():
        data.cell, data.pbc = torch.tensor(atoms.cell.array[None]), torch.tensor(atoms.pbc[None])
    return RadiusGraph(CUTOFF)(data)


def rattled(atoms: Atoms, size: float, seed: int = 0) -> Atoms:
    atoms = atoms.copy()
    atoms.positions += size * np.random.default_rng(seed).standard_normal(atoms.positions.shape)
    return atoms


def moved(atoms: Atoms) -> Atoms:
    """Turned, shifted, its atoms in another order."""
    atoms = atoms[np.random.default_rng(1).permutation(len(atoms))]
    atoms.rotate(70, (1, 2, 3), rotate_cell=True)
    atoms.translate((3.0, 0.1, -7.0))
    return atoms


@pytest.mark.parametrize("atoms", [molecule("CH3CH2OH"), bulk("Cu", cubic=True)])
def test_place_rotation_and_order_count_nothing(atoms):
    atoms = rattled(atoms, 0.1)
    np.testing.assert_allclose(fingerprint(graph(moved(atoms)), CUTOFF), fingerprint(graph(atoms), CUTOFF), atol=1e-9)


def test_distances_are_those_of_ase():
    atoms = molecule("CH3CH2OH")
    oxygen = int(np.flatnonzero(atoms.numbers == 8)[0])
    expected = np.sort(np.delete(atoms.get_distances(oxygen, range(9)), oxygen))
    found = fingerprint(graph(atoms), CUTOFF)[-1]  # elements in order of their numbers
    np.testing.assert_allclose(found, [*np.minimum(expected, CUTOFF), *[CUTOFF] * (NEAREST - 8)])


def test_a_crystal_has_its_first_shell():
    np.testing.assert_allclose(fingerprint(graph(bulk("Cu")), CUTOFF), [[3.61 / np.sqrt(2)] * 12])


def test_small_moves_are_duplicates_and_large_ones_are_not():
    distinct, atoms = Distinct(0.02), molecule("CH3CH2OH")
    assert distinct.duplicate_of(0, graph(atoms), CUTOFF) is None
    assert distinct.duplicate_of(1, graph(rattled(atoms, 0.005)), CUTOFF) == 0
    assert distinct.duplicate_of(2, graph(rattled(atoms, 0.1)), CUTOFF) is None
    assert distinct.duplicate_of(3, graph(rattled(rattled(atoms, 0.1), 0.005, 1)), CUTOFF) == 2


def test_other_elements_are_other_structures():
    distinct, atoms = Distinct(10.0), molecule("CO")
    assert distinct.duplicate_of(0, graph(atoms), CUTOFF) is None
    assert distinct.duplicate_of(1, graph(Atoms("NO", positions=atoms.positions)), CUTOFF) is None


def test_zero_switches_it_off():
    distinct, atoms = Distinct(0.0), molecule("CO")
    assert [distinct.duplicate_of(number, graph(atoms), CUTOFF) for number in range(2)] == [None, None]
