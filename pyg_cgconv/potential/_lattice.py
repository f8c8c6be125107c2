"""What both searches of neighbours share: the cell, and which edges are shorter than the cutoff."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from torch import Tensor

KEPT = 64
"""Lattices of which what was made is kept: in dynamics a cell is asked for again and again."""


@dataclass(frozen=True, eq=False)
class Lattice:
    """Lattice vectors and what follows from them; nobody may write to the arrays. It is equal to itself only.

    A point at the fractional coordinate f of direction k lies ``f * spacing[k]`` away from face k of the cell.

    Attributes:
        cell: The vectors as rows (3, 3), and unit vectors normal to the others where a direction is not periodic.
        pbc: Which directions are periodic (3,).
        inverse: Of the cell (3, 3).
        spacing: Distance between opposite faces of the cell (3,), Angstrom.
    """

    cell: np.ndarray
    pbc: np.ndarray
    inverse: np.ndarray
    spacing: np.ndarray


def lattice(cell, pbc) -> Lattice:
    """The lattice of a cell (3, 3) or (1, 3, 3), or None, and one flag or three, or None.

    Raises:
        ValueError: an argument of the wrong shape, not finite, or a periodic direction without a lattice vector.
    """
    pbc = array(cell is not None if pbc is None else pbc).astype(bool).reshape(-1)
    if pbc.size not in (1, 3):
        raise ValueError(f"pbc: expected one bool or three, got {pbc.size}")
    pbc = np.broadcast_to(pbc, 3)
    if cell is None and pbc.any():
        raise ValueError("cell: missing, but pbc asks for periodic images; give the lattice vectors (3, 3)")
    cell = np.zeros((3, 3)) if cell is None else array(cell).astype(np.float64)
    if cell.shape not in ((3, 3), (1, 3, 3)) or not np.isfinite(cell).all():
        raise ValueError(f"cell: expected finite lattice vectors (3, 3) or (1, 3, 3), got shape {cell.shape}")
    return _made(cell.tobytes(), pbc.tobytes())


@lru_cache(KEPT)
def _made(cell: bytes, pbc: bytes) -> Lattice:
    """Of the numbers in these arrays."""
    periodic = np.frombuffer(pbc, dtype=bool)
    completed = _completed(np.frombuffer(cell).reshape(3, 3), periodic)
    inverse = np.linalg.inv(completed)
    spacing = 1 / np.linalg.norm(inverse, axis=0)
    for made in (completed, inverse, spacing):
        made.flags.writeable = False
    return Lattice(completed, periodic, inverse, spacing)


def _completed(cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """The cell with unit vectors normal to the periodic ones in the directions that are not periodic."""
    periodic = cell[pbc]
    _, lengths, axes = np.linalg.svd(periodic) if pbc.any() else (None, np.ones(1), np.eye(3))
    if lengths.min() < 1e-6 * max(lengths.max(), 1.0):
        raise ValueError(
            f"cell: the lattice vectors of the periodic directions {pbc.tolist()} span no volume: {cell.tolist()}"
        )
    completed = cell.copy()
    completed[~pbc] = axes[pbc.sum() :]
    return completed


def are_inside(difference, shift, cell, cutoff: float):
    """Whether edges are shorter than the cutoff: of arrays and of tensors, with additions in one order for all, so that
    a shell of atoms right at the cutoff is in all lists or in none.

    Args:
        difference: Of the positions of source and target (..., 3).
        shift: Lattice vectors (..., 3).
        cell: (3, 3).
    """
    vector = difference + (shift[..., :1] * cell[0] + shift[..., 1:2] * cell[1] + shift[..., 2:] * cell[2])
    square = vector * vector
    return square[..., 0] + square[..., 1] + square[..., 2] < cutoff**2


def array(given) -> np.ndarray:
    return given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
