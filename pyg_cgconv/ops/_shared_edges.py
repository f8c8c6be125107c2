"""One sort for all calls with one ``edge_index``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from .._torch import is_traced, is_transformed, untransformed, without_transforms
from ..cuda_graphs import captured_graph
from ._edges import FLOWS, Edges, Neighbors, checks_on_host, is_edge_index
from ._groups import Groups

_Sorted = TypeVar("_Sorted", bound=Edges)


class _Shared(NamedTuple):
    """The edges that calls with one tensor share, and what must not have changed since they were sorted."""

    edges: Edges
    state: tuple
    copy: Tensor | None

    def serves(self, edge_index: Tensor, state: tuple) -> bool:
        return self.state == state and (self.copy is None or torch.equal(self.copy, edge_index))


# A model calls many layers with one edge_index: they share one sort. Nothing here keeps the tensor itself alive.
_recent: dict[type[Edges], WeakIdKeyDictionary] = {kind: WeakIdKeyDictionary() for kind in (Edges, Neighbors, Groups)}


def sorted_edges(
    edge_index: Tensor, sources: int, targets: int, flow: str = FLOWS[0], kind: type[Edges] = Edges
) -> Edges:
    """The edges of this very tensor, sorted at its first use, and in a CUDA graph once for each replay.

    On a CPU, and on a GPU with ``PYG_CGCONV_CHECK=1``, its content is compared. On a GPU a write is otherwise seen if
    torch counts it: not those through NumPy, DLPack or ``.data``. Whoever makes such writes gives the layers an
    :class:`Edges`.
    """
    plain = untransformed("edge_index", edge_index.as_tensor() if is_edge_index(edge_index) else edge_index)
    key = edge_index if is_edge_index(edge_index) else plain
    make = partial(kind, sources=sources, targets=targets, flow=flow)
    return _sorted(kind, key, plain, make, (sources, targets, flow))


def sorted_neighbors(edge_index: Tensor, nodes: int, flow: str = FLOWS[0]) -> Edges:
    """The same for the edges of a neighbour list: see :class:`Neighbors`."""
    return sorted_edges(edge_index, nodes, nodes, flow, Neighbors)


def sorted_groups(group: Tensor, groups: int) -> Groups:
    """The nodes of these groups (N,), sorted at the first use of this very tensor, as edges are by `sorted_edges`."""
    plain = untransformed("element", group)
    return _sorted(Groups, plain, plain, partial(Groups.of, groups=groups), (groups,))


def _sorted(kind: type[Edges], key: Tensor, plain: Tensor, make: Callable[[Tensor], _Sorted], state: tuple) -> _Sorted:
    on_gpu = plain.is_cuda
    if is_traced(plain) or (on_gpu and plain.is_inference()):  # tensors of inference mode count no versions
        return make(key)
    if on_gpu:
        state = *state, plain._version, captured_graph(plain)
    if is_transformed():
        with without_transforms():
            return _shared(_recent[kind], key, plain, make, state)
    return _shared(_recent[kind], key, plain, make, state)


def _shared(
    recent: WeakIdKeyDictionary, key: Tensor, plain: Tensor, make: Callable[[Tensor], _Sorted], state: tuple
) -> _Sorted:
    known = recent.get(key)
    if known is None or not known.serves(plain, state):
        copy = plain.clone() if checks_on_host(plain) else None
        recent[key] = known = _Shared(make(key), state, copy)
    return known.edges
