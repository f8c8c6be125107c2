"""Edges listed by the node that they end at, or that they start from. Indices are sorted, never features."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary
from torch_geometric import EdgeIndex

_LARGEST = 2**30 - 1  # kernels count the bytes of an index list in 32 bits


class SortedEdges:
    """The edges of a graph with `sources` and `targets` nodes, for kernels that walk the edges of one node.

    `by_target` and `by_source` are lists of three int32 tensors, `(first, edges, others)`: the edges of node n stand at
    positions first[n] to first[n + 1]; position p is edge edges[p], whose other end is node others[p].
    """

    def __init__(self, edge_index: Tensor, sources: int, targets: int):
        if max(edge_index.shape[1], sources, targets) > _LARGEST:
            raise ValueError(
                f"edge_index: kernels take fewer than 2^30 edges and nodes; got {edge_index.shape[1]} edges, {sources} "
                f"source and {targets} target nodes. Split the graph."
            )
        self.sources = sources
        sorted_by_target = isinstance(edge_index, EdgeIndex) and edge_index.is_sorted_by_col
        if isinstance(edge_index, EdgeIndex):
            edge_index = edge_index.as_tensor()
        self.source, self.target = edge_index.to(torch.int32).unbind(0)
        _check_range("source", self.source, sources)
        _check_range("target", self.target, targets)
        if sorted_by_target:
            edges = torch.arange(len(self.target), dtype=torch.int32, device=self.target.device)
            self.by_target = [_first(self.target, targets), edges, self.source.contiguous()]
        else:
            self.by_target = _listed(self.target, self.source, targets)
        self._by_source: list[Tensor] | None = None

    @property
    def by_source(self) -> list[Tensor]:
        if self._by_source is None:
            self._by_source = _listed(self.source, self.target, self.sources)
        return self._by_source


def _listed(node: Tensor, other: Tensor, nodes: int) -> list[Tensor]:
    node, edges = torch.sort(node, stable=True)
    return [_first(node, nodes), edges.to(torch.int32), other[edges]]


def _first(sorted_node: Tensor, nodes: int) -> Tensor:
    bounds = torch.arange(nodes + 1, dtype=torch.int32, device=sorted_node.device)
    return torch.searchsorted(sorted_node.contiguous(), bounds, out_int32=True)


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
    """The sorted edges of this very tensor, sorted at its first use."""
    # A captured graph must sort what its buffers hold at each replay; tensors of inference mode count no versions.
    if torch.compiler.is_compiling() or edge_index.is_inference() or _is_captured(edge_index):
        return SortedEdges(edge_index, sources, targets)
    state = (edge_index._version, sources, targets)
    known = _recent.get(edge_index)
    if known is None or known[0] != state:
        _recent[edge_index] = known = (state, SortedEdges(edge_index, sources, targets))
    return known[1]


def _is_captured(tensor: Tensor) -> bool:
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()
