"""Neighbour lists of ASE's atoms that last for some steps."""

from __future__ import annotations

import math

import numpy as np
import torch
from ase import Atoms
from torch_geometric.data import Data

from ._neighbors import RadiusGraph


class VerletList:
    r"""Neighbours within :math:`r_c + s`, cutoff and skin, used again until an atom has moved more than :math:`s / 2`.

    Two atoms that were at least :math:`r_c + s` apart are then still at least :math:`r_c` apart, so that no neighbour
    is ever missed; pairs beyond the cutoff count nothing in a :class:`~pyg_cgconv.Potential`. Where the cell has
    become another one, :math:`\mathbf{h} \mathbf{F}`, atoms are moved along with it, and the list serves while

    .. math:: 2 \max_i |\mathbf{r}_i' - \mathbf{r}_i \mathbf{F}| \le \sigma (r_c + s) - r_c

    with the least singular value :math:`\sigma` of :math:`\mathbf{F}`: the distance between two atoms of the moved
    crystal is at least :math:`\sigma` times what it was. Another periodicity, number of atoms or species of an atom
    makes a new list, and so does wrapping an atom into the cell.

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
        self.cutoff, self.skin, self.device, self.builds = float(cutoff), float(skin), device, 0
        self._neighbors = RadiusGraph(cutoff + self.skin)
        self.made_for: Atoms | None = None
        self._data: Data | None = None
        self._cell, self._charge = np.zeros((3, 3)), 0.0  # that the graph has

    def __call__(self, atoms: Atoms) -> Data:
        """The graph of ``atoms`` as a potential reads it, with float64 positions.

        It is changed by the next call. Graphs of one list share their ``edge_index``, which the potential's layers sort
        once.
        """
        if self._data is not None and self._reaches(atoms):
            self._data.pos = torch.tensor(atoms.positions, device=self.device)
            self._put_cell(self._data, atoms.cell.array)
        else:
            data = _edgeless(atoms)
            data.pos = data.pos.to(self.device)  # the rest later: the search has its cell from the host
            self._data = self._neighbors(data).to(self.device)
            self.made_for, self._cell = atoms.copy(), atoms.cell.array.copy()
            self.builds += 1
            self._charge = 0.0
        self._put_charge(self._data, charge_of(atoms))
        return self._data

    def _put_charge(self, data: Data, charge: float) -> None:
        """The total charge, e, which a graph has unless it is zero."""
        if charge != self._charge:
            self._charge = charge
            data.charge = torch.tensor([charge], dtype=torch.float64, device=self.device)

    def _put_cell(self, data: Data, cell: np.ndarray) -> None:
        if np.array_equal(cell, self._cell):
            return
        self._cell = cell.copy()
        data.cell = torch.tensor(cell[None], device=self.device)
        if self.device.type == "cuda":  # by another tensor a CUDA graph knows that more than positions has changed
            data.edge_index = data.edge_index[:]

    def _reaches(self, atoms: Atoms) -> bool:
        """Whether the list has all neighbours of ``atoms``."""
        before = self.made_for
        if (
            before is None
            or not np.array_equal(atoms.numbers, before.numbers)
            or not np.array_equal(atoms.pbc, before.pbc)
        ):
            return False
        start, room = before.positions, self.skin
        if not np.array_equal(atoms.cell.array, before.cell.array):
            if not (has_volume(before) and has_volume(atoms)):
                return False
            deformation = np.linalg.solve(before.cell.array, atoms.cell.array)
            least = np.linalg.svd(deformation, compute_uv=False)[-1]
            start, room = start @ deformation, least * (self.cutoff + self.skin) - self.cutoff
        moved = np.square(atoms.positions - start).sum(axis=1)
        # Not so for NaN, which the search then reports.
        return room >= 0 and bool((moved <= (room / 2) ** 2).all())


def charge_of(atoms: Atoms) -> float:
    """The total charge, e.

    Raises:
        ValueError: what the atoms have for it is no finite number.
    """
    given = atoms.info.get("charge", 0.0)
    try:
        charge = float(given)
    except (TypeError, ValueError):
        charge = math.nan
    if not math.isfinite(charge):
        raise ValueError(f"atoms.info['charge']: expected the total charge, a number in e, got {given!r}")
    return charge


def has_volume(atoms: Atoms) -> bool:
    """Whether the lattice vectors span one; not so if a number is NaN or infinite."""
    return bool(0 < atoms.cell.volume < float("inf"))


def _edgeless(atoms: Atoms) -> Data:
    """Species and positions, and the cell if any direction is periodic or it has a volume."""
    data = Data(z=torch.tensor(atoms.numbers), pos=torch.tensor(atoms.positions))
    if atoms.pbc.any() or has_volume(atoms):
        data.cell, data.pbc = torch.tensor(atoms.cell.array[None]), torch.tensor(atoms.pbc[None])
    return data
