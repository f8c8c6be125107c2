"""Which atoms see each other, found on a GPU: of few atoms by all distances, of many in bins as wide as the cutoff.

It is written in operations of torch, and works on a CPU, too, where scipy's k-d tree is faster. A launch takes some
microseconds, and a wait for a number on the host some tens: so there are few of both, for millions of pairs at a time.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ._lattice import KEPT, Lattice, are_inside

SLACK = 1e-6  # relative, of what is searched beyond the cutoff: far more than coordinates are rounded by

ALL_PAIRS = 1 << 22
"""Pairs of which all distances are computed, at 0.12 kB each: those of 2,000 atoms where a cell is twice as wide as the
cutoff."""

CANDIDATES = 1 << 22
"""Pairs from bins whose distances are computed at a time, at 0.15 kB each."""

MOST_BINS = 1 << 17
"""Of a direction: all bins are then numbered exactly by float64."""


def searched_on_gpu(points: Tensor, lattice: Lattice, cutoff: float) -> tuple[Tensor, Tensor]:
    """Edges (2, E) and shifts (E, 3) as :func:`~pyg_cgconv.potential.radius_graph` has them, where the positions are.

    Args:
        points: Finite float64 positions (n, 3).
    """
    reach = cutoff * (1 + SLACK)
    # The image that is next to an atom is half a cell away at most, in units of the cell.
    steps = np.where(lattice.pbc, np.floor(reach / lattice.spacing + 0.5 + SLACK), 0)
    if len(points) ** 2 * math.prod(2 * steps + 1) <= ALL_PAIRS:
        cell, inverse, images = _tables(lattice, tuple(steps), points.device)
        return _of_all_pairs(points, cell, inverse, images, cutoff)
    return _in_bins(points, lattice, reach, cutoff)


@lru_cache(KEPT)
@torch.inference_mode(False)
def _tables(lattice: Lattice, steps: tuple[float, ...], device: torch.device) -> tuple[Tensor, ...]:
    """What :func:`_of_all_pairs` reads of a lattice; nobody may write to it."""
    return _sent(device, lattice.cell, lattice.inverse * lattice.pbc, _offsets(np.array(steps)))


def _of_all_pairs(
    points: Tensor, cell: Tensor, inverse: Tensor, images: Tensor, cutoff: float
) -> tuple[Tensor, Tensor]:
    """By the distances from each atom to the next image of each atom, and to the ``images`` (k, 3) around it.

    Args:
        inverse: Of the cell, and zero in directions that are not periodic.
    """
    fractional = points @ inverse
    shift = (fractional[:, None] - fractional).round_()[:, :, None]
    if len(images) > 1:
        shift = shift + images
    inside = are_inside((points - points[:, None])[:, :, None], shift, cell, cutoff)
    inside[:, :, len(images) // 2].diagonal().fill_(False)  # an atom itself
    target, source, image = inside.nonzero(as_tuple=True)
    return torch.stack([source, target]), shift[target, source, image] + 0.0  # no -0.0


def _in_bins(points: Tensor, lattice: Lattice, reach: float, cutoff: float) -> tuple[Tensor, Tensor]:
    """By the distances between atoms of bins that are next to each other."""
    cell, inverse, pbc = _sent(points.device, lattice.cell, lattice.inverse, lattice.pbc[None])
    fractional = points @ inverse
    home = fractional.floor() * pbc
    grid = _grid(fractional - home, lattice, reach)
    atoms = torch.cat([points, home, grid.bins], dim=1)

    occupied, order = (grid.bins @ grid.stride).sort()
    around = ((grid.bins[:, None] + grid.steps).remainder_(grid.size) @ grid.stride).flatten()
    last = torch.searchsorted(occupied, around, right=True)
    total = (last - torch.searchsorted(occupied, around)).cumsum(0)  # candidates in each bin around each atom, so far
    begin = last - total
    to_bin = (grid.steps @ grid.vectors - grid.places[:, None]).flatten(0, 1)  # from each atom to each bin around it
    in_bin, width = grid.places[order], len(grid.steps)

    pairs, shifts = [], []
    for first in range(0, count := int(total[-1]), CANDIDATES):
        number = torch.arange(first, min(first + CANDIDATES, count), device=points.device)
        row = torch.searchsorted(total, number, right=True)
        place = number.add_(begin[row])
        (near,) = (torch.linalg.vector_norm(to_bin[row].add_(in_bin[place]), dim=1) < reach).nonzero(as_tuple=True)

        row, source = row[near], order[place[near]]
        target = row // width
        at_source, at_target = atoms[source], atoms[target]
        image = (at_target[:, 6:] + grid.steps[row % width]).div_(grid.size, rounding_mode="floor")
        shift = image + at_target[:, 3:6] - at_source[:, 3:6]
        inside = are_inside(at_source[:, :3] - at_target[:, :3], shift, cell, cutoff)
        inside &= row != source * width + width // 2  # an atom itself
        (kept,) = inside.nonzero(as_tuple=True)
        pairs.append((target * len(points) + source)[kept])
        shifts.append(shift[kept])
    pair, order = torch.cat(pairs).sort(stable=True)  # images of one atom are in order
    return torch.stack([pair % len(points), pair // len(points)]), torch.cat(shifts)[order] + 0.0  # no -0.0


class Grid(NamedTuple):
    """Bins, at least as wide as is searched, of atoms: all whole numbers are float64.

    In a periodic direction bins go around. Otherwise there is an empty one at either end, so that the ends are apart.

    Attributes:
        bins: Of the atoms (n, 3).
        places: Where atoms are in their bins (n, 3), Angstrom.
        size: How many bins there are in each direction (3,).
        stride: What a step in each direction adds to the number of a bin (3,).
        steps: To the bins in which neighbours may be (k, 3), sorted.
        vectors: Steps in each direction as rows (3, 3), Angstrom.
    """

    bins: Tensor
    places: Tensor
    size: Tensor
    stride: Tensor
    steps: Tensor
    vectors: Tensor


def _grid(coordinates: Tensor, lattice: Lattice, reach: float) -> Grid:
    """Bins of atoms by their coordinates in units of the cell (n, 3), wrapped into it in periodic directions."""
    pbc, spacing, low = lattice.pbc, lattice.spacing, np.zeros(3)
    if not pbc.all():
        low, high = np.array(torch.stack(coordinates.aminmax(dim=0)).tolist())
        spacing = np.where(pbc, spacing, np.maximum(high - low, reach))
    count = np.clip(np.floor(spacing / reach), 1, MOST_BINS)
    width = np.where(pbc, 1, spacing) / count  # in units of the cell
    origin, size = np.where(pbc, 0, low - width), np.where(pbc, count, count + 2)
    largest = np.where(pbc, count - 1, count)
    stride = np.array([size[1] * size[2], size[2], 1])
    numbers, vectors, steps = _sent(
        coordinates.device,
        np.stack([origin, 1 / width, largest, size, stride]),
        lattice.cell * width[:, None],
        _offsets(np.ceil(reach / spacing)),
    )
    origin, scale, largest, size, stride = numbers
    coordinates = (coordinates - origin) * scale
    bins = torch.minimum(coordinates.floor(), largest)
    return Grid(bins, (coordinates - bins) @ vectors, size, stride, steps, vectors)


def _offsets(steps: np.ndarray) -> np.ndarray:
    """All whole numbers (k, 3) between ``-steps`` and ``steps``, sorted; zero is in their middle."""
    return np.indices([int(2 * s + 1) for s in steps]).reshape(3, -1).T - steps


def _sent(device: torch.device, *tables: np.ndarray) -> tuple[Tensor, ...]:
    """Float64 tables of three columns on the device, by one copy, for which nobody waits."""
    rows = torch.from_numpy(np.concatenate(tables, dtype=np.float64)).to(device, non_blocking=True)
    return rows.split([len(table) for table in tables])
