"""The embedded periodic set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch_geometric.data import Data

from datasets.npz import read_arrays
from datasets.structure_dataset import Collated, StructureDataset

if TYPE_CHECKING:
    from ase import Atoms

FILE = Path(__file__).parent / "data" / "alloys-emt.npz"
# Part of every cache file's name: raise it whenever the same file would be read as other structures.
READER_VERSION = 1
# Of each array: how it counts (by atom or by structure), the shape of an entry, and the type that it is read as.
ARRAYS = {
    "num_atoms": ("structure", (), np.int64),
    "numbers": ("atom", (), np.int64),
    "positions": ("atom", (3,), np.float64),
    "forces": ("atom", (3,), np.float64),
    "cells": ("structure", (3, 3), np.float64),
    "pbc": ("structure", (3,), np.bool_),
    "energies": ("structure", (), np.float64),
    "stresses": ("structure", (3, 3), np.float64),
    "frame": ("structure", (), np.int64),
}
FORCE_DECIMALS, STRESS_DECIMALS = 8, 10  # eV/Angstrom, eV/Angstrom^3


class AlloysEMT(StructureDataset):
    r"""600 structures of Al, Ni, Cu and Au, periodic in three or two directions, with energies, forces and stresses: no
    network.

    Cells are of nine shapes, of one to 12 atoms, strained by up to 5 %; elements sit at random sites, and atoms are
    displaced. Labels are those of ASE's effective medium theory (EMT), a classical potential: a set to try periodic
    cells and stresses on, not a reference for metals. ``datasets/data/README.md`` says how it was made. Structures are
    shuffled, so any slice of them is a random sample.

    An item is a :class:`~torch_geometric.data.Data` with

    - ``z`` (n,) int64, atomic numbers,
    - ``pos`` (n, 3) float64, Angstrom,
    - ``energy`` (1,) float64, eV, zero in the fcc crystals of the elements, as EMT counts it,
    - ``forces`` (n, 3) float64, eV/Angstrom,
    - ``stress`` (1, 3, 3) float64, eV/Angstrom^3, positive where the structure wants to shrink,
    - ``cell`` (1, 3, 3) float64, lattice vectors as rows, Angstrom; ``pbc`` (1, 3) bool.

    Arguments are those of :class:`StructureDataset`.
    """

    def __init__(
        self,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        cache: str | Path | None = None,
        num_workers: int = 0,
    ):
        super().__init__(
            lambda _: read_alloys(FILE),
            [FILE],
            ("AlloysEMT", READER_VERSION),
            transform,
            pre_transform,
            pre_filter,
            cache,
            num_workers,
        )


def write_alloys(path: Path, structures: Sequence[Atoms], frame: np.ndarray) -> None:
    """Writes labelled ``structures``, and the number (structures,) by which each was made, to an npz file."""
    np.savez_compressed(
        path,
        num_atoms=np.array([len(atoms) for atoms in structures], np.uint8),
        numbers=np.concatenate([atoms.numbers for atoms in structures]).astype(np.uint8),
        positions=np.concatenate([atoms.positions for atoms in structures]),
        forces=np.concatenate([atoms.get_forces() for atoms in structures]).round(FORCE_DECIMALS),
        cells=np.array([atoms.cell.array for atoms in structures]),
        pbc=np.array([atoms.pbc for atoms in structures]),
        energies=np.array([atoms.get_potential_energy() for atoms in structures]),
        stresses=np.array([atoms.get_stress(voigt=False) for atoms in structures]).round(STRESS_DECIMALS),
        frame=frame.astype(np.int32),
    )


def read_alloys(path: Path) -> Collated:
    """Reads what :func:`write_alloys` wrote, as InMemoryDataset.collate makes it of one Data a structure.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a whole npz file of these arrays.
    """
    arrays = read_arrays(path, tuple(ARRAYS))
    counts = {"structure": len(arrays["energies"]), "atom": int(arrays["num_atoms"].sum())}
    shapes = {name: array.shape for name, array in arrays.items()}
    expected = {name: (counts[by], *shape) for name, (by, shape, _) in ARRAYS.items()}
    if shapes != expected:
        raise ValueError(f"{path}: arrays of shapes {shapes}, expected {expected}; restore the file of the checkout")
    tensors = {name: torch.from_numpy(arrays[name].astype(dtype)) for name, (_, _, dtype) in ARRAYS.items()}
    data = Data(
        z=tensors["numbers"],
        pos=tensors["positions"],
        energy=tensors["energies"],
        forces=tensors["forces"],
        stress=tensors["stresses"],
        cell=tensors["cells"],
        pbc=tensors["pbc"],
    )
    by_structure = torch.arange(counts["structure"] + 1)
    by_atom = torch.cat([torch.zeros(1, dtype=torch.int64), tensors["num_atoms"].cumsum(0)])
    by_atoms = dict.fromkeys(("z", "pos", "forces"), by_atom)
    return data, by_atoms | dict.fromkeys(("energy", "stress", "cell", "pbc"), by_structure)
