"""Rock salt, the structure that models of atoms are timed on."""

from __future__ import annotations

from math import isqrt

import numpy as np
from ase import Atoms
from ase.build import bulk

ELEMENTS, NUMBERS = ("Na", "Cl"), (11, 17)
LATTICE, RATTLE, CUTOFF, NEIGHBORS = 5.64, 0.1, 6.0, 32.0
"""Angstrom: the cubic cell's edge, the atoms' displacements, and how far models see; how many neighbours that makes."""
CUBIC, PRIMITIVE = 8, 2
"""Atoms of a cell."""


def rock_salt(atoms: int, seed: int = 0) -> Atoms:
    """A periodic crystal of so many atoms, half of each element, displaced at random. All have the neighbours of a
    large crystal, because in a small one atoms see images of themselves.

    Raises:
        ValueError: there is no such crystal.
    """
    if atoms < PRIMITIVE or atoms % PRIMITIVE:
        raise ValueError(f"atoms: expected a positive even number, half of each element, got {atoms}")
    is_cubic = atoms % CUBIC == 0
    cell = bulk("NaCl", "rocksalt", a=LATTICE, cubic=is_cubic)
    crystal = cell * _repeats(atoms // (CUBIC if is_cubic else PRIMITIVE))
    crystal.rattle(RATTLE, rng=np.random.default_rng(seed))
    return crystal


def _repeats(cells: int) -> tuple[int, int, int]:
    """How often a cell is repeated in each direction, as evenly as this number of cells allows."""
    first = _divisor(cells, round(cells ** (1 / 3)))
    second = _divisor(cells // first, isqrt(cells // first))
    return first, second, cells // first // second


def _divisor(number: int, most: int) -> int:
    return max(d for d in range(1, most + 1) if number % d == 0)
