"""Edges listed by the node that they end at, or that they start from. Indices are sorted, never features."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeGuard

import torch
from torch import Tensor

from .._checks import check_choice
from .._torch import is_traced, untransformed, without_transforms
from ._edge_checks import check_nodes, check_number, check_sorted, checks_on_host

if TYPE_CHECKING:
    from torch_geometric import EdgeIndex

_LARGEST = 2**30 - 1  # kernels count the bytes of an index list in 32 bits
ROW_EDGES = 256
"""Edges of one node that a GPU's block of threads walks; nodes with more are cut, lest the GPU wait for one block. More
than the 160 neighbours of a dense lattice, which would pay for the cuts and gain nothing."""

WORTHWHILE = 8 * ROW_EDGES
"""Graphs with fewer edges are not cut: to look for large nodes takes longer than to walk one."""

FLOWS = ("source_to_target", "target_to_source")


class EdgeList(NamedTuple):
    """Edges sorted by the node at one of their ends; five int32 tensors.

    Row r belongs to node owners[r] and has positions starts[r] to starts[r + 1]; position p is edge edges[p], whose
    other end is node others[p]. Each node has a row, on a GPU one for each `ROW_EDGES` edges: `continuing` lists the
    nodes of the rows that are not their node's first. `owners` and `continuing` have a fixed length; unused entries at
    their end hold the number of nodes.
    """

    starts: Tensor
    owners: Tensor
    edges: Tensor
    others: Tensor
    continuing: Tensor

    @property
    def nodes(self) -> int:
        return self.starts.shape[0] - 1 - self.continuing.shape[0]


class Graph(NamedTuple):
    """The lists that one call walks. `by_source` is None where the call does not need it."""

    by_target: EdgeList
    by_source: EdgeList | None
    sources: int


class Edges:
    """A graph's edges, sorted once and given to many layers in place of ``edge_index``.

    A copy: later changes of the tensors that it was made of do not reach it.

    Args:
        edge_index: (2, E) int64 or int32, in any order, or a PyG :class:`~torch_geometric.EdgeIndex` (one that is
            sorted by column is not sorted again); or the pair (source, target) of index tensors (E,).
        sources: Number of source nodes, the rows of x.
        targets: Number of target nodes, the rows of the output; by default as many as an EdgeIndex says, or as
            ``sources``.
        flow: "source_to_target" if row 0 of ``edge_index`` is the source, as in PyG; "target_to_source" if row 0 is the
            target, as in NequIP. A pair is (source, target) in any case.

    Attributes:
        sources: Number of source nodes.
        targets: Number of target nodes.
        num_edges: Number of edges.
        by_target: The :class:`EdgeList` by target.
        by_source: The one by source, made when it is first asked for.

    Raises:
        ValueError: an index is not of a node, a shape, dtype or device is wrong, or the graph is too large.
        TypeError: an argument is of another kind.
    """

    def __init__(
        self,
        edge_index: Tensor | tuple[Tensor, Tensor],
        sources: int,
        targets: int | None = None,
        *,
        flow: str = FLOWS[0],
    ):
        check_choice("flow", flow, FLOWS)
        told = told_sizes(edge_index, flow)
        if targets is None:
            targets = sources if told[1] is None else told[1]
        for name, given, number in zip(("sources", "targets"), (sources, targets), told, strict=True):
            if number is not None and number != given:
                raise ValueError(f"{name}: {given}, but sparse_size of edge_index says {number}; they must agree")
        check_number("sources", sources)
        check_number("targets", targets)
        source, target, is_sorted = _ends(edge_index, flow)
        self.sources, self.targets, self.num_edges = sources, targets, target.shape[0]
        self._by_source: EdgeList | None = None
        self._repeated: tuple[int, Edges] | None = None
        with without_transforms():
            self._sort(source, target, is_sorted)

    def _row_edges(self) -> int | None:
        """The most edges of a row, None for all of a node's."""
        return _row_edges(self.target)

    def _sort(self, source: Tensor, target: Tensor, is_sorted: bool) -> None:
        traced = is_traced(source, target)  # then numbers of edges and nodes are not known
        if not traced and max(self.num_edges, self.sources, self.targets) > _LARGEST:
            raise ValueError(
                f"edge_index: kernels take fewer than 2^30 edges and nodes; got {self.num_edges} edges, {self.sources} "
                f"source and {self.targets} target nodes. Split the graph."
            )
        check_nodes(source, target, self.sources, self.targets)
        if is_sorted and checks_on_host(target):
            check_sorted(target)
        self.source, self.target = (end.to(torch.int32, copy=True) for end in (source, target))
        if is_sorted:
            edges = torch.arange(self.num_edges, dtype=torch.int32, device=target.device)
            self.by_target = _rows(self.target, edges, self.source, self.targets, self._row_edges())
        else:
            self.by_target = _listed(self.target, self.source, self.targets, self._row_edges())

    def repeated(self, count: int) -> Edges:
        """This graph `count` times, side by side: copy n has the nodes and edges after those of copy n - 1."""
        if self._repeated is not None and self._repeated[0] == count:
            return self._repeated[1]
        with without_transforms():
            copy = torch.arange(count, device=self.device)[:, None]
            source, target = (
                (copy * self.sources + self.source).flatten(),
                (copy * self.targets + self.target).flatten(),
            )
            edges = type(self)((source, target), count * self.sources, count * self.targets)
        if not is_traced(edges.source):
            self._repeated = count, edges
        return edges

    @classmethod
    def identity(cls, nodes: int, device: torch.device | str = "cpu") -> Edges:
        """The graph in which each node is its only neighbour."""
        check_number("nodes", nodes)
        node = torch.arange(nodes, device=device)
        return cls((node, node), nodes)

    @property
    def by_source(self) -> EdgeList:
        if self._by_source is not None:
            return self._by_source
        with without_transforms():
            listed = _listed(self.source, self.target, self.sources, self._row_edges())
        if not is_traced(self.source, *listed):  # not what a program that is being traced has made
            self._by_source = listed
        return listed

    def both_ways(self) -> Edges:
        """These edges, when the list by source has been made, too."""
        assert self.by_source is not None
        return self

    @property
    def in_degrees(self) -> Tensor:
        """Edges that end at each target node (targets,)."""
        ones = torch.ones_like(self.target)
        return ones.new_zeros(self.targets).index_add_(0, self.target, ones)  # bincount would ask the GPU, and stall it

    def to(self, device: torch.device | str) -> Edges:
        """The same edges on another device."""
        return (
            self
            if self.device == torch.device(device)
            else type(self)((self.source.to(device), self.target.to(device)), self.sources, self.targets)
        )

    @property
    def device(self) -> torch.device:
        return self.target.device

    def __repr__(self) -> str:
        return f"Edges({self.num_edges} edges, {self.sources} sources, {self.targets} targets, {self.device})"


class Neighbors(Edges):
    """Edges of a neighbour list. Atoms have about as many neighbours each: none is cut into rows, which saves a GPU 17
    small operations for each list, and in each call a look at what was cut."""

    def _row_edges(self) -> int | None:
        return None


def is_edge_index(edge_index: object) -> TypeGuard[EdgeIndex]:
    """Whether it is PyG's EdgeIndex, which is not imported here."""
    return type(edge_index) is not Tensor and isinstance(edge_index, Tensor) and hasattr(edge_index, "sparse_size")


def told_sizes(edge_index: object, flow: str) -> tuple[int | None, int | None]:
    """How many source and target nodes an EdgeIndex says there are."""
    if is_edge_index(edge_index):
        rows, columns = edge_index.sparse_size()
        return (rows, columns) if flow == FLOWS[0] else (columns, rows)
    return None, None


def _ends(edge_index: Tensor | tuple[Tensor, Tensor], flow: str) -> tuple[Tensor, Tensor, bool]:
    """Source and target of each edge, and whether edges are sorted by target."""
    for given in edge_index if _is_pair(edge_index) else (edge_index,):
        if isinstance(given, Tensor) and given.layout != torch.strided:
            raise ValueError(
                f"edge_index: expected (2, E), or a pair of tensors (E,), got {given.layout} {tuple(given.shape)}; "
                "give the layer the transposed adjacency matrix adj_t itself, or make "
                "Edges(adj_t.coalesce().indices().flip(0), sources, targets) of one in COO form"
            )
    if isinstance(edge_index, Tensor):
        plain, is_sorted = edge_index, False
        if is_edge_index(edge_index):
            plain = edge_index.as_tensor()
            is_sorted = edge_index.is_sorted_by_col if flow == FLOWS[0] else edge_index.is_sorted_by_row
        if plain.dim() != 2 or plain.shape[0] != 2:
            raise ValueError(f"edge_index: expected (2, E), or a pair of tensors (E,), got shape {tuple(plain.shape)}")
        ends = plain.unbind(0)
        source, target = ends if flow == FLOWS[0] else ends[::-1]
    elif _is_pair(edge_index):
        # PyG's Index is a tensor of a class of its own.
        source, target = (end.as_tensor() if hasattr(end, "as_tensor") else end for end in edge_index)
        is_sorted = False
    else:
        raise TypeError(
            "edge_index: expected a tensor (2, E), an EdgeIndex, or a pair of tensors (source, target), got "
            f"{type(edge_index).__name__}"
        )
    source, target = (untransformed("edge_index", end) for end in (source, target))
    if source.device != target.device:
        raise ValueError(
            f"edge_index: sources are on {source.device}, targets on {target.device}; move one of them with .to()"
        )
    for end in (source, target):
        if end.dim() != 1 or end.shape != target.shape or end.dtype not in (torch.int64, torch.int32):
            raise ValueError(
                f"edge_index: expected int64 or int32 indices of two ends, (E,) each, got {source.dtype} "
                f"{tuple(source.shape)} and {target.dtype} {tuple(target.shape)}"
            )
    return source, target, is_sorted


def _is_pair(edge_index: object) -> TypeGuard[tuple[Tensor, Tensor]]:
    return isinstance(edge_index, (tuple, list)) and [isinstance(end, Tensor) for end in edge_index] == [True, True]


def _listed(node: Tensor, other: Tensor, nodes: int, most: int | None) -> EdgeList:
    node, edges = torch.sort(node, stable=True)
    return _rows(node, edges.to(torch.int32), other[edges], nodes, most)


def listed_by_source(graph: Graph) -> EdgeList:
    """The edges by source, of those by target."""
    starts, owners, edges, others, continuing = graph.by_target
    order = edges.argsort()
    target = owners.repeat_interleave(starts.diff(), output_size=edges.shape[0])
    return _listed(others[order], target[order], graph.sources, _row_edges(edges) if len(continuing) else None)


def _row_edges(edges: Tensor) -> int | None:
    """The most edges of a row, None for all of a node's."""
    return ROW_EDGES if edges.is_cuda and edges.shape[0] >= WORTHWHILE else None


def _rows(sorted_node: Tensor, edges: Tensor, others: Tensor, nodes: int, most: int | None) -> EdgeList:
    counted = torch.arange(nodes + 1, dtype=torch.int32, device=sorted_node.device)
    first = torch.searchsorted(sorted_node.contiguous(), counted, out_int32=True)
    if most is None:
        return EdgeList(first, counted[:-1], edges, others, counted[:0])
    # No step asks the GPU how many rows there are, which would stall it: no graph needs more further rows than this.
    more = edges.shape[0] // most
    ends = first.diff().sub(1).div(most, rounding_mode="floor").clamp(min=0).add(1).cumsum(0)
    begins = torch.cat([ends.new_zeros(1), ends])
    row = torch.arange(nodes + more + 1, device=sorted_node.device)
    owners = torch.searchsorted(ends, row, right=True)
    starts = (first[owners] + (row - begins[owners]) * most).clamp(max=edges.shape[0])
    continuing = torch.searchsorted(ends - counted[1:], row[:more], right=True)
    return EdgeList(starts.to(torch.int32), owners[:-1].to(torch.int32), edges, others, continuing.to(torch.int32))
