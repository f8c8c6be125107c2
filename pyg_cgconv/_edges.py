"""Edges listed by the node that they end at, or that they start from. Indices are sorted, never features."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary
from torch_geometric import EdgeIndex

from ._capture import captured_graph

_LARGEST = 2**30 - 1  # kernels count the bytes of an index list in 32 bits
ROW_EDGES = 256
"""Edges of one node that a GPU's block of threads walks; nodes with more are cut, lest the GPU wait for one block. More
than the 160 neighbours of a dense lattice, which would pay for the cuts and gain nothing."""

WORTHWHILE = 8 * ROW_EDGES
"""Graphs with fewer edges are not cut: to look for large nodes takes longer than to walk one."""


class SortedEdges:
    """The edges of a graph with `sources` and `targets` nodes, for kernels that walk the edges of one node.

    `by_target` and `by_source` are lists of five int32 tensors, `(starts, owners, edges, others, continuing)`. Row r
    walks positions starts[r] to starts[r + 1] of node owners[r]; position p is edge edges[p], whose other end is node
    others[p]. Each node has a row, on a GPU one for each `ROW_EDGES` edges: `continuing` lists the nodes of the rows
    that are not their node's first. Both lists of nodes end in the number of nodes where there are fewer rows than may
    be.
    """

    def __init__(self, edge_index: Tensor, sources: int, targets: int):
        if max(edge_index.shape[1], sources, targets) > _LARGEST:
            raise ValueError(
                f"edge_index: kernels take fewer than 2^30 edges and nodes; got {edge_index.shape[1]} edges, {sources} "
                f"source and {targets} target nodes. Split the graph."
            )
        self.sources, self.targets = sources, targets
        sorted_by_target = isinstance(edge_index, EdgeIndex) and edge_index.is_sorted_by_col
        if isinstance(edge_index, EdgeIndex):
            edge_index = edge_index.as_tensor()
        self.source, self.target = edge_index.to(torch.int32).unbind(0)
        _check_range("source", self.source, sources)
        _check_range("target", self.target, targets)
        if sorted_by_target:
            edges = torch.arange(len(self.target), dtype=torch.int32, device=self.target.device)
            self.by_target = _rows(self.target, edges, self.source.contiguous(), targets, _row_edges(edges))
        else:
            self.by_target = _listed(self.target, self.source, targets)
        self._by_source: list[Tensor] | None = None

    @property
    def in_degrees(self) -> Tensor:
        """Edges that end at each target node."""
        ones = torch.ones_like(self.target)
        return ones.new_zeros(self.targets).index_add_(0, self.target, ones)  # bincount would ask the GPU, and stall it

    @property
    def by_source(self) -> list[Tensor]:
        if self._by_source is None:
            self._by_source = _listed(self.source, self.target, self.sources)
        return self._by_source


def _listed(node: Tensor, other: Tensor, nodes: int) -> list[Tensor]:
    node, edges = torch.sort(node, stable=True)
    return _rows(node, edges.to(torch.int32), other[edges], nodes, _row_edges(edges))


def _row_edges(edges: Tensor) -> int | None:
    """The most edges of a row, None for all of a node's."""
    return ROW_EDGES if edges.is_cuda and len(edges) >= WORTHWHILE else None


def _rows(sorted_node: Tensor, edges: Tensor, others: Tensor, nodes: int, most: int | None) -> list[Tensor]:
    counted = torch.arange(nodes + 1, dtype=torch.int32, device=sorted_node.device)
    first = torch.searchsorted(sorted_node.contiguous(), counted, out_int32=True)
    if most is None:
        return [first, counted[:-1], edges, others, counted[:0]]
    # No step asks the GPU how many rows there are, which would stall it: no graph needs more further rows than this.
    more = len(edges) // most
    ends = first.diff().sub(1).div(most, rounding_mode="floor").clamp(min=0).add(1).cumsum(0)
    begins = torch.cat([ends.new_zeros(1), ends])
    row = torch.arange(nodes + more + 1, device=sorted_node.device)
    owners = torch.searchsorted(ends, row, right=True)
    starts = (first[owners] + (row - begins[owners]) * most).clamp(max=len(edges))
    continuing = torch.searchsorted(ends - counted[1:], row[:more], right=True)
    return [starts.to(torch.int32), owners[:-1].to(torch.int32), edges, others, continuing.to(torch.int32)]


def _check_range(end: str, node: Tensor, nodes: int) -> None:
    inside = ((node >= 0) & (node < nodes)).all()
    message = (
        f"edge_index: a {end} node is not in 0..{nodes - 1}, the rows of {'x' if end == 'source' else 'the output'}"
    )
    if node.is_cuda or torch.compiler.is_compiling():
        torch._assert_async(inside, message)  # fails on the device: asking the host would stall every call
    elif not inside:
        raise ValueError(
            f"{message}; it has nodes {node.min().item()} to {node.max().item()}. Give `size` for a bipartite graph."
        )


# A model calls many layers with one edge_index: they share one sort. A change in place makes another version.
_recent: WeakIdKeyDictionary = WeakIdKeyDictionary()


def sorted_edges(edge_index: Tensor, sources: int, targets: int) -> SortedEdges:
    """The sorted edges of this very tensor, sorted at its first use, and in a CUDA graph once for each replay."""
    if torch.compiler.is_compiling() or edge_index.is_inference():  # tensors of inference mode count no versions
        return SortedEdges(edge_index, sources, targets)
    state = (edge_index._version, sources, targets, captured_graph(edge_index))
    known = _recent.get(edge_index)
    if known is None or known[0] != state:
        _recent[edge_index] = known = (state, SortedEdges(edge_index, sources, targets))
    return known[1]
