"""Which atoms see each other, found on a GPU: few points by all distances, many in bins half as wide as the cutoff.

It is written in operations of torch, and works on a CPU, too, where scipy's k-d tree is faster. Small systems wait for
launches, some microseconds each, so there are few of them: 4 without bins, some 50 with bins.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

CANDIDATES = 1 << 22
"""Pairs whose distances are computed at a time, which take 0.1 kB each in bins."""

ALL_PAIRS = 1 << 23
"""Pairs of which all distances are computed, at 40 bytes each: 1,600 atoms of a periodic liquid at 5 Angstrom."""

SPAN = 2
"""Bins on either side that a neighbour may be in."""


def near(targets: Tensor, points: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """Target (E,) and point (E,) of each pair that is no farther apart than ``reach``, sorted by target, then point.

    Args:
        targets: Coordinates (n, 3).
        points: Coordinates (m, 3).

    Raises:
        ValueError: the bins have no numbers: more than 2^62 of them.
    """
    if len(targets) * len(points) <= ALL_PAIRS:
        pairs = (torch.linalg.vector_norm(targets[:, None] - points, dim=2) <= reach).nonzero()
        return pairs[:, 0], pairs[:, 1]
    return _near_in_bins(targets, points, reach)


def _near_in_bins(targets: Tensor, points: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    key, size = _bins(torch.cat([targets, points]), reach / SPAN)
    of_targets, of_points = key.split([len(targets), len(points)])
    bins, order = of_points.sort()
    sorted_points = points[order]
    step = np.arange(-SPAN, SPAN + 1)
    offsets = ((step[:, None] * size[1] + step) * size[2]).ravel()  # to the middle of each row of bins
    rows = of_targets[:, None] + torch.from_numpy(offsets).to(points.device)
    first = torch.searchsorted(bins, rows - SPAN)
    count = torch.searchsorted(bins, rows + SPAN, right=True) - first

    found = []
    for numbers, pairs in _chunks(count.sum(1).cpu().numpy()):
        lengths = count[numbers].flatten()
        row = torch.repeat_interleave(lengths, output_size=pairs)  # of each pair
        begins = first[numbers].flatten() - (lengths.cumsum(0) - lengths)
        place = torch.arange(pairs, device=row.device) + begins[row]
        target = row.div(rows.shape[1], rounding_mode="floor") + numbers.start
        inside = (sorted_points[place] - targets[target]).square().sum(1) <= reach**2
        found.append(torch.stack([target, place])[:, inside])
    target, place = torch.cat(found, dim=1)
    pair = (target * len(points) + order[place]).sort().values
    return pair.div(len(points), rounding_mode="floor"), pair % len(points)


def _bins(points: Tensor, width: float) -> tuple[Tensor, list[int]]:
    """A number for the bin of each point, (x size[1] + y) size[2] + z.

    Along an axis, three or more empty bins count as three: numbers stay small however far points are apart.
    """
    places, order = (points / width).floor().sort(dim=0)
    steps = places.diff(dim=0, prepend=places[:1]).clamp(max=SPAN + 1).cumsum(0).long()
    axes = torch.empty_like(steps).scatter_(0, order, steps)
    size = (steps[-1] + 2 * SPAN + 1).tolist()  # so that a row does not reach into the next
    if math.prod(size) > 1 << 62:
        raise ValueError(f"pos: too far apart in too many places, {size} bins of {width:g} Angstrom; search on a CPU")
    return (axes[:, 0] * size[1] + axes[:, 1]) * size[2] + axes[:, 2], size


def _chunks(work: np.ndarray) -> Iterator[tuple[slice, int]]:
    """Slices of targets, and the pairs of each, about :data:`CANDIDATES`; ``work`` are the pairs of each target."""
    total = work.cumsum()
    chunk = total // CANDIDATES
    bounds = [0, *(np.flatnonzero(np.diff(chunk)) + 1).tolist(), len(work)]
    return ((slice(first, last), int(work[first:last].sum())) for first, last in pairwise(bounds))
