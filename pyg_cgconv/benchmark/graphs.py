"""Graphs of the sizes that models meet, made from random points: the shortest pairs become the edges."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from ..neighbors import radius_graph

# copies of a system, its atoms, edges in all, periodic
GRAPHS = {
    "molecule": (1, 21, 316, False),
    "molecules": (64, 21, 20_050, False),
    "liquid": (1, 6_000, 353_280, True),
    "dense": (1, 1_000, 160_000, True),
}


@cache
def build(name: str, seed: int = 0) -> tuple[int, Tensor]:
    """Number of nodes, and edge_index (2, E) int64 sorted by target.

    Atoms lie on a jittered grid of unit spacing; systems of several copies have no edges between the copies.

    Raises:
        ValueError: no graph of this name.
    """
    if name not in GRAPHS:
        raise ValueError(f"graphs: {name!r} is not one of {', '.join(GRAPHS)}")
    copies, atoms, edges, periodic = GRAPHS[name]
    random = np.random.default_rng(seed)
    side = int(np.ceil(atoms ** (1 / 3)))
    layers = -(-atoms // side**2)
    sites = np.stack(np.meshgrid(range(side), range(side), range(layers), indexing="ij"), -1).reshape(-1, 3)[:atoms]
    cell = np.diag([side, side, layers]).astype(float) if periodic else None
    cutoff = 1.6 * (3 / (4 * np.pi) * edges / (copies * atoms)) ** (1 / 3)
    indices, lengths = [], []
    for copy in range(copies):
        positions = sites + random.uniform(-0.4, 0.4, sites.shape)
        index, shift = radius_graph(positions, cutoff + (0 if periodic else side), cell)
        vectors = positions[index[0]] - positions[index[1]] + (shift.numpy() @ cell if periodic else 0)
        indices.append(index + copy * atoms)
        lengths.append(torch.from_numpy((vectors**2).sum(-1)))
    kept = torch.cat(lengths).argsort(stable=True)[:edges].sort().values
    return copies * atoms, torch.cat(indices, dim=1)[:, kept].contiguous()
