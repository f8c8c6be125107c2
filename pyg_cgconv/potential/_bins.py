"""Which atoms see each other, found on a GPU: points in bins half as wide as the cutoff.

It is written in operations of torch, and works on a CPU, too, where scipy's k-d tree is faster.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

CANDIDATES = 1 << 22
"""Pairs whose distances are computed at a time, which take 0.1 kB each."""

SPAN = 2
"""Bins on either side that a neighbour may be in."""


def near(targets: Tensor, points: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """Target (E,) and point (E,) of each pair that is no farther apart than ``reach``, in any order.

    Args:
        targets: Coordinates (n, 3).
        points: Coordinates (m, 3).

    Raises:
        ValueError: the bins have no numbers: more than 2^62 of them.
    """
    if not len(targets):
        return (torch.zeros(0, dtype=torch.int64, device=targets.device),) * 2
    key, size = _bins(torch.cat([targets, points]), reach / SPAN)
    of_targets, of_points = key.split([len(targets), len(points)])
    bins, order = of_points.sort()
    points = points[order]
    step = torch.arange(-SPAN, SPAN + 1, device=points.device)
    rows = of_targets[:, None] + ((step[:, None] * size[1] + step) * size[2]).flatten()
    first = torch.searchsorted(bins, rows - SPAN)
    count = torch.searchsorted(bins, rows + SPAN, right=True) - first

    found = []
    for numbers in _chunks(count.sum(1)):
        lengths = count[numbers].flatten()
        row = torch.repeat_interleave(lengths)  # of each pair
        begins = first[numbers].flatten() - (lengths.cumsum(0) - lengths)
        place = torch.arange(len(row), device=row.device) + begins[row]
        target = numbers.start + row.div(rows.shape[1], rounding_mode="floor")
        inside = ((points[place] - targets[target]).square().sum(1) <= reach**2).nonzero().flatten()
        found.append((target[inside], order[place[inside]]))
    return torch.cat([target for target, _ in found]), torch.cat([point for _, point in found])


def _bins(points: Tensor, width: float) -> tuple[Tensor, list[int]]:
    """A number for the bin of each point, (x size[1] + y) size[2] + z.

    Along an axis, three or more empty bins count as three: numbers stay small however far points are apart.
    """
    axes, size = [], []
    for where in ((points - points.amin(0)) / width).floor().unbind(1):
        occupied, number = where.unique(return_inverse=True)
        steps = occupied.diff().clamp(max=SPAN + 1).cumsum(0).long()
        axes.append(torch.cat([steps.new_zeros(1), steps])[number])
        size.append(int(axes[-1].max()) + 2 * SPAN + 1)  # so that a row does not reach into the next
    if math.prod(size) > 1 << 62:
        raise ValueError(f"pos: too far apart in too many places, {size} bins of {width:g} Angstrom; search on a CPU")
    return (axes[0] * size[1] + axes[1]) * size[2] + axes[2], size


def _chunks(work: Tensor) -> Iterator[slice]:
    """Slices of targets with about :data:`CANDIDATES` pairs each."""
    chunk = work.cumsum(0).div(CANDIDATES, rounding_mode="floor")
    bounds = [0, *((chunk.diff() > 0).nonzero().flatten() + 1).tolist(), len(work)]
    return (slice(first, last) for first, last in pairwise(bounds))
