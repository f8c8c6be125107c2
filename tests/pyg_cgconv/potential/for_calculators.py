"""A potential, and a molecule, a crystal and a slab for its calculator."""

import numpy as np
import torch
from ase import Atoms
from torch_geometric.data import Data

from pyg_cgconv import Potential, RadiusGraph

CUTOFF, SKIN = 3.0, 0.5
SHIFT = {"H": -13.5, "C": -1030.0, "O": -2040.0}


def make(**options):
    torch.manual_seed(1)
    return Potential(
        ["H", "C", "O"],
        CUTOFF,
        channels=2,
        lmax=1,
        layers=2,
        num_radial=3,
        radial_hidden=(4,),
        avg_num_neighbors=4.0,
        shift=SHIFT,
        scale=4.0,
        **{"dtype": "float64", **options},
    )


def molecule():
    grid = np.stack(np.meshgrid(*[np.arange(2.0)] * 3), axis=-1).reshape(-1, 3)
    return Atoms("HCOHCHOH", positions=1.5 * grid + 0.3 * np.random.default_rng(0).random((8, 3)))


def crystal():
    """Three atoms in a cell smaller than the cutoff."""
    rng = np.random.default_rng(1)
    cell = 2.6 * np.eye(3) + 0.4 * rng.random((3, 3))
    return Atoms("HCO", scaled_positions=rng.random((3, 3)), cell=cell, pbc=True)


def slab():
    atoms = crystal()
    atoms.cell[2], atoms.pbc = 0.0, (True, True, False)
    return atoms


def pair(distance):
    return Atoms("CO", positions=[[0.0, 0.0, 0.0], [distance, 0.0, 0.0]])


def called_directly(potential, atoms, **options):
    data = Data(z=torch.tensor(atoms.numbers), pos=torch.tensor(atoms.positions))
    if atoms.pbc.any():
        data.cell, data.pbc = torch.tensor(atoms.cell.array[None]), torch.tensor(atoms.pbc[None])
    out = potential(RadiusGraph(CUTOFF)(data), create_graph=False, **options)
    return {name: value.numpy() for name, value in out.items()}


def close(actual, expected, rtol=1e-9, atol=1e-11):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)
