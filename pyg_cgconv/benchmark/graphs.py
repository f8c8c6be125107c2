"""Graphs of the sizes and shapes that models meet: molecules, solids, a chain, and one node that everything points
to; and rows without a graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..potential import radius_graph


def _molecules(nodes: int, edges: int, random: np.random.Generator, *, copies: int) -> Tensor:
    """Droplets too far apart to see each other."""
    sites, box = _grid(nodes // copies)
    positions = sites + random.uniform(-0.4, 0.4, (copies, *sites.shape))
    positions[..., 0] += 10 * box[0, 0] * np.arange(copies)[:, None]
    return _shortest_pairs(positions.reshape(-1, 3), edges)


def _solid(nodes: int, edges: int, random: np.random.Generator, *, jitter: float) -> Tensor:
    """A periodic cell of atoms that lie up to `jitter` lattice constants off their sites."""
    sites, box = _grid(nodes)
    return _shortest_pairs(sites + random.uniform(-jitter, jitter, sites.shape), edges, box)


def _chain(nodes: int, edges: int, random: np.random.Generator) -> Tensor:
    """An ideal chain in vacuum: dense where it meets itself, thin elsewhere."""
    return _shortest_pairs(random.normal(size=(nodes, 3)).cumsum(0), edges)


def _hub(nodes: int, edges: int, random: np.random.Generator, *, neighbors: int) -> Tensor:
    """The last node receives from `neighbors` random nodes, some of them several times; the others share the rest."""
    targets = np.append(_even(nodes - 1, edges - neighbors), np.full(neighbors, nodes - 1))
    return torch.from_numpy(np.stack([random.integers(nodes, size=edges), targets]))


def _regular(nodes: int, edges: int, random: np.random.Generator) -> Tensor:
    """Every node receives from equally many random nodes."""
    return torch.from_numpy(np.stack([random.integers(nodes, size=edges), _even(nodes, edges)]))


class Graph(NamedTuple):
    """Nodes, and edge_index (2, E) int64 sorted by target, or None: then the nodes are rows that know no others."""

    nodes: int
    edge_index: Tensor | None

    @property
    def sites(self) -> int:
        """How many edges there are, or rows."""
        return self.nodes if self.edge_index is None else self.edge_index.shape[1]

    def to(self, device: torch.device) -> Graph:
        return self._replace(edge_index=None if self.edge_index is None else self.edge_index.to(device))

    def of_first(self, targets: int) -> tuple[Graph, Tensor]:
        """What the output of the first nodes depends on, and which edges, or rows, that is: a mask over all of them."""
        if self.edge_index is None:
            return Graph(min(targets, self.nodes), None), torch.arange(self.nodes) < targets
        kept = self.edge_index[1] < targets
        return Graph(self.nodes, self.edge_index[:, kept]), kept


# nodes, edges, and what makes the edges
GRAPHS: dict[str, tuple[int, int, Callable[[int, int, np.random.Generator], Tensor]]] = {
    "molecule": (21, 316, partial(_molecules, copies=1)),
    "molecules": (1_344, 20_050, partial(_molecules, copies=64)),
    "lattice": (1_000, 160_000, partial(_solid, jitter=0.05)),
    "small-liquid": (1_000, 30_000, partial(_solid, jitter=0.4)),
    "liquid": (6_000, 353_280, partial(_solid, jitter=0.4)),
    "protein": (8_000, 104_000, _chain),
    "hub": (20_001, 360_000, partial(_hub, neighbors=200_000)),
    "regular": (20_001, 360_000, _regular),
    **{
        f"edges-{edges // 1000}k": (edges // 20, edges, partial(_solid, jitter=0.4))
        for edges in (50_000, 100_000, 250_000)
    },
}
ROWS = {"rows-1k": 1_000, "rows-4096": 4_096, "rows-50k": 50_000}
NAMES = (*GRAPHS, *ROWS)


@cache
def build(name: str, seed: int = 0) -> Graph:
    """The graph, or the rows, of this name.

    Raises:
        ValueError: there is none.
    """
    if name in ROWS:
        return Graph(ROWS[name], None)
    if name not in GRAPHS:
        raise ValueError(f"graphs: {name!r} is not one of {', '.join(NAMES)}")
    nodes, edges, make = GRAPHS[name]
    return Graph(nodes, make(nodes, edges, np.random.default_rng(seed)))


def _grid(atoms: int) -> tuple[np.ndarray, np.ndarray]:
    """Sites (atoms, 3) of a nearly cubic grid of unit spacing, and its box (3, 3)."""
    side = int(np.ceil(atoms ** (1 / 3)))
    layers = -(-atoms // side**2)
    sites = np.stack(np.meshgrid(range(side), range(side), range(layers), indexing="ij"), -1).reshape(-1, 3)
    return sites[:atoms], np.diag([side, side, layers]).astype(float)


def _shortest_pairs(positions: np.ndarray, edges: int, cell: np.ndarray | None = None) -> Tensor:
    """The `edges` shortest pairs, sorted by target, then source; the search widens until it finds as many."""
    cutoff = 1.0
    while (found := radius_graph(positions, cutoff, cell))[0].shape[1] < edges:
        cutoff *= 1.25
    index, shift = found
    vectors = positions[index[0]] - positions[index[1]] + (0 if cell is None else shift.numpy() @ cell)
    kept = (vectors**2).sum(-1).argsort(kind="stable")[:edges]
    return index[:, np.sort(kept)].contiguous()


def _even(nodes: int, edges: int) -> np.ndarray:
    """Sorted targets (edges,) of nodes whose degrees differ by one at most."""
    return np.arange(edges) * nodes // edges
