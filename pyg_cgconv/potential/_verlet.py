"""Neighbour lists of ASE's atoms that last for some steps."""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms
from torch_geometric.data import Data

from ._neighbors import RadiusGraph


class VerletList:
    r"""Neighbours within :math:`r_c + s`, cutoff and skin, used again until an atom has moved more than :math:`s / 2`.

    Two atoms that were at least :math:`r_c + s` apart are then still at least :math:`r_c` apart, so that no neighbour
    is ever missed; pairs beyond the cutoff count nothing in a :class:`~pyg_cgconv.Potential`. Another cell,
    periodicity, number of atoms or species of an atom makes a new list too, and so does wrapping an atom into the cell.

    Args:
        cutoff: :math:`r_c`, Angstrom.
        skin: :math:`s`, Angstrom.
        device: Where the graphs are wanted.

    Attributes:
        builds: How many lists were made so far.
        made_for: A copy of the atoms that the list was made for; None before the first.
    """

    def __init__(self, cutoff: float, skin: float, device: torch.device):
        if not 0 <= skin < float("inf"):
            raise ValueError(f"skin: expected zero or a positive number of Angstrom, got {skin}")
        self.skin, self.device, self.builds = float(skin), device, 0
        self._neighbors = RadiusGraph(cutoff + self.skin)
        self.made_for: Atoms | None = None
        self._data: Data | None = None

    def __call__(self, atoms: Atoms) -> Data:
        """The graph of ``atoms`` as a potential reads it, with float64 positions.

        It is changed by the next call. Graphs of one list share their ``edge_index``, which the potential's layers sort
        once.
        """
        if self._data is not None and self._reaches(atoms):
            self._data.pos = torch.tensor(atoms.positions, device=self.device)
        else:
            self._data = self._neighbors(_edgeless(atoms)).to(self.device)
            self.made_for = atoms.copy()
            self.builds += 1
        self._data.charge = torch.tensor([charge_of(atoms)], dtype=torch.float64, device=self.device)
        return self._data

    def _reaches(self, atoms: Atoms) -> bool:
        """Whether the list has all neighbours of ``atoms``."""
        before = self.made_for
        if before is None or not (
            np.array_equal(atoms.numbers, before.numbers)
            and np.array_equal(atoms.pbc, before.pbc)
            and np.array_equal(atoms.cell.array, before.cell.array)
        ):
            return False
        moved = np.square(atoms.positions - before.positions).sum(axis=1)
        return bool((moved <= (self.skin / 2) ** 2).all())  # not so for NaN, which the search then reports


def charge_of(atoms: Atoms) -> float:
    """The total charge, e."""
    return float(atoms.info.get("charge", 0.0))


def has_volume(atoms: Atoms) -> bool:
    return atoms.cell.rank == 3


def _edgeless(atoms: Atoms) -> Data:
    """Species and positions, and the cell if any direction is periodic or it has a volume."""
    data = Data(z=torch.tensor(atoms.numbers), pos=torch.tensor(atoms.positions))
    if atoms.pbc.any() or has_volume(atoms):
        data.cell, data.pbc = torch.tensor(atoms.cell.array[None]), torch.tensor(atoms.pbc[None])
    return data
