"""What a layer takes for a graph: an edge_index, PyG's EdgeIndex, sorted Edges, or a sparse adjacency matrix."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.utils import is_sparse, to_edge_index

from .._torch import untransformed, without_transforms
from ..ops import FLOWS, Edges, told_sizes

Size = tuple[int | None, int | None]
UNKNOWN: Size = (None, None)
SPARSE = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)
"""Forms of a matrix with an entry an edge; BSR and BSC have one a block."""


class Graph(NamedTuple):
    """A layer's graph.

    Attributes:
        edges: ``edge_index`` (2, E), or sorted edges.
        num_edges: E.
        size: Source and target nodes, where the graph says how many.
        device: Where it is.
    """

    edges: Tensor | Edges
    num_edges: int
    size: Size
    device: torch.device


def read_graph(given: Any, flow: str) -> Graph:
    """The graph that a layer was given as ``edge_index``.

    Raises:
        TypeError: it is none of what a layer takes.
        ValueError: its shape or dtype is wrong, or it is sparse and no matrix of edges, or the flow is not PyG's usual
            one.
    """
    if isinstance(given, Edges):
        return Graph(given, given.num_edges, (given.sources, given.targets), given.device)
    if not isinstance(given, Tensor):
        if is_sparse(given):  # torch_sparse's
            return _of_adjacency(given, flow)
        raise TypeError(
            f"edge_index: expected an integer tensor (2, E), an EdgeIndex, Edges or a transposed sparse adjacency, got "
            f"{type(given).__name__}; of separate sources and targets make Edges((source, target), nodes)"
        )
    if given.layout != torch.strided:
        return _of_adjacency(given, flow)
    if given.dim() != 2 or given.shape[0] != 2 or given.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"edge_index: expected an integer tensor (2, E), an EdgeIndex or Edges, got {given.dtype} "
            f"{tuple(given.shape)}"
        )
    return Graph(given, given.shape[1], told_sizes(given, flow), given.device)


def _of_adjacency(adj_t: Any, flow: str) -> Graph:
    """Of the transposed adjacency matrix: its rows are targets. Edges have the order of its values."""
    if flow != FLOWS[0]:
        raise ValueError(
            f"edge_index: a sparse adjacency with flow={flow!r}; give the transposed matrix to a layer with "
            f"flow={FLOWS[0]!r}"
        )
    with without_transforms():  # which know no sparse tensors
        if isinstance(adj_t, Tensor):
            adj_t = _checked_adjacency(untransformed("edge_index", adj_t))
            (target, source), _ = to_edge_index(adj_t)
        else:  # torch_sparse's
            target, source, _ = adj_t.coo()
        edge_index = torch.stack([source, target])
    return Graph(edge_index, edge_index.shape[1], (adj_t.size(1), adj_t.size(0)), edge_index.device)


def _checked_adjacency(adj_t: Tensor) -> Tensor:
    if adj_t.layout not in SPARSE or adj_t.dim() != 2 or adj_t.sparse_dim() != 2:
        form = f", {adj_t.dense_dim()} of them dense" if adj_t.layout in SPARSE and adj_t.dense_dim() else ""
        raise ValueError(
            "edge_index: a sparse adjacency is a matrix (targets, sources) in COO, CSR or CSC form, with one number an "
            f"edge; got {adj_t.layout} of {adj_t.dim()} dimensions{form}. Give its edges as an integer tensor (2, E), "
            "sources in row 0"
        )
    return adj_t


def pair_of(x: Any) -> tuple[Tensor | None, Tensor | None]:
    """The features of source and target nodes.

    Raises:
        TypeError: it is neither a tensor nor a pair of tensors, one of which may be None.
    """
    if isinstance(x, Tensor):
        return x, x
    if not isinstance(x, (tuple, list)) or len(x) != 2 or not all(isinstance(t, Tensor | None) for t in x):
        found = f"{len(x)} things" if isinstance(x, (tuple, list)) else type(x).__name__
        raise TypeError(f"x: expected a tensor, or a pair of tensors of which one may be None, got {found}")
    return x[0], x[1]


def node_counts(x: tuple[Tensor | None, Tensor | None], size: Size | None, graph: Graph) -> tuple[int, int]:
    """How many source and target nodes there are.

    Args:
        x: The features of both, where they are known.
        size: The numbers, as they were given to the layer.

    Raises:
        ValueError: they contradict each other, or nothing tells one of them.
        TypeError: ``size`` is no pair.
    """
    if size is None and graph.size == UNKNOWN and x[0] is not None and x[0] is x[1]:  # nearly always
        return x[0].shape[0], x[0].shape[0]
    if size is not None and (not isinstance(size, (tuple, list)) or len(size) != 2):
        raise TypeError(f"size: expected a pair (source nodes, target nodes), got {size!r}")
    sources, targets = zip(x, size or UNKNOWN, graph.size, strict=True)
    return _node_count("source", *sources), _node_count("target", *targets)


def _node_count(role: str, features: Tensor | None, size: int | None, of_graph: int | None) -> int:
    rows = None if features is None else features.shape[0]
    told = {"size": size, "edge_index": of_graph, "x": rows}
    found = {name: number for name, number in told.items() if number is not None}
    if not found:
        raise ValueError(f"size: needed when x has no {role} features; give (source nodes, target nodes)")
    count = next(iter(found.values()))
    if any(number != count for number in found.values()):
        said = ", ".join(f"{number} by {name}" for name, number in found.items())
        raise ValueError(f"size: the number of {role} nodes is {said}; they must agree")
    return count
