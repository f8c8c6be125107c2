"""A model as one CUDA graph, or two with gradients: small systems wait for launches, not for kernels."""

from __future__ import annotations

import math
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from ..cuda_graphs import capturing, on_stream
from ._gradients import Backward, Differentiable, Turns, captured_backward, gradients
from ._replacement import logger

Data = dict[str, Tensor]
Results: TypeAlias = dict[str, Tensor | None]
Function: TypeAlias = Callable[[Data, Sequence[Tensor]], Results]
Completed: TypeAlias = Callable[[Data, Tensor], Data]

MOST_ROOM = 0.1
"""Edges that a graph has room for beyond those that it was captured with, in units of these."""
DEVIATIONS = 10
"""The same in units of the square root of their number, which numbers of pairs at random would vary by."""
KEPT = 4
"""Graphs at a time. They share the memory of intermediate results, because they run one after the other."""
WARM_UP = 3
"""Calls before a capture: kernels are compiled at the first one; at the next ones e3nn's TorchScript specialises."""
PATIENCE = 16
"""Captures, without as many replays, after which nothing more is captured: it does not pay."""


class _Captured(NamedTuple):
    """A graph, what it reads and writes, how many edges it has room for, and what makes gradients by parameters."""

    graph: torch.cuda.CUDAGraph
    given: Data
    edge_count: Tensor
    results: Results
    edges: int
    backward: Backward | None


class Replay:
    """A function of dictionaries of tensors, captured once for each kind of them and then launched as a whole.

    Args:
        by_edge: The names of tensors that have a number for each edge, and their dimension of edges. The first one
            tells how many edges there are.
    """

    def __init__(self, by_edge: Mapping[str, int]):
        self._by_edge = by_edge
        self._known: OrderedDict[Hashable, _Captured] = OrderedDict()
        self._stream: torch.cuda.Stream | None = None
        self._pools: dict[bool, Any] = {}
        self._turns = Turns()
        self._told = False
        self.captures = self.replays = 0

    @property
    def is_taken(self) -> bool:
        """Whether gradients of an earlier call may still be asked for, so that there can be no further such call."""
        return self._turns.is_taken

    def __call__(
        self,
        function: Function,
        completed: Completed,
        data: Data,
        options: Hashable,
        parameters: Sequence[Tensor] = (),
    ) -> dict | None:
        """What the function returns for the data, in memory of its own; None if captures have not paid.

        Args:
            function: of data, and of leaves that stand for the parameters and lie where they do. Of the parameters
                themselves other derivatives may know, which a capture must not wait for.
            completed: of a dictionary with room for more edges, and how many it has, makes one whose other edges change
                nothing. It is captured, too.
            options: whatever else the function depends on.
            parameters: leaves of which the function has gradients. Without them its results have none.
        """
        tensors = {name: value for name, value in data.items() if isinstance(value, Tensor)}
        count = self._count(tensors)
        asked_for = tuple([parameter.data_ptr() for parameter in parameters])
        key = options, asked_for, tuple([self._signature(name, value) for name, value in tensors.items()])
        captured = self._known.get(key)
        if captured is None or not captured.edges / 2 <= count <= captured.edges:
            if not self._pays():
                return None
            self._known.pop(key, None)  # its memory is free before more is asked for
            captured = self._known[key] = self._capture(function, completed, tensors, room(count), parameters)
        self._known.move_to_end(key)
        self._fill(captured, tensors, count)
        self.replays += 1
        return self._replayed(captured, parameters)

    def _replayed(self, captured: _Captured, parameters: Sequence[Tensor]) -> dict:
        backward, results = captured.backward, captured.results
        if backward is None:
            captured.graph.replay()
            return {name: None if value is None else value.clone() for name, value in results.items()}
        read = [results[name] for name in backward.names]
        found = Differentiable.apply(captured.graph, read, backward, self._turns.begin(), *parameters)
        others = {name: value for name, value in results.items() if name not in backward.names}
        return {name: None if value is None else value.clone() for name, value in others.items()} | dict(
            zip(backward.names, found, strict=True)
        )

    def _pays(self) -> bool:
        """Whether to go on capturing; the first time that it is not, somebody is told."""
        if self.captures < PATIENCE or self.replays >= 2 * self.captures:
            return True
        if not self._told:
            self._told = True
            warnings.warn(
                f"cuda_graphs: {self.captures} graphs were captured for {self.replays} calls, because numbers of atoms "
                "or structures change from call to call; other sizes are computed without a graph from now on",
                stacklevel=2,
            )
        return False

    def _count(self, tensors: Data) -> int:
        name, dim = next(iter(self._by_edge.items()))
        return tensors[name].shape[dim]

    def _signature(self, name: str, value: Tensor) -> tuple:
        """What must be the same of a tensor for the same graph."""
        by_edge = self._by_edge.get(name)
        return name, value.dtype, value.device, tuple(value.shape) if by_edge is None else by_edge

    def _capture(
        self, function: Function, completed: Completed, tensors: Data, edges: int, parameters: Sequence[Tensor]
    ) -> _Captured:
        while len(self._known) >= KEPT:
            self._known.popitem(last=False)
        device = next(iter(tensors.values())).device
        if self._stream is None or self._stream.device != device:
            self._stream, self._pools = torch.cuda.Stream(device), {}
        # Intermediate results outlive a graph if another one makes gradients of them.
        pool = self._pools.setdefault(bool(parameters), torch.cuda.graph_pool_handle())
        given = {name: self._with_room(name, value.detach(), edges) for name, value in tensors.items()}
        captured = _Captured(torch.cuda.CUDAGraph(), given, torch.zeros((), device=device), {}, edges, None)
        read: set[str] = set()

        leaves = [parameter.detach().requires_grad_() for parameter in parameters]

        def run() -> Results:
            data = _Recording(completed(_Recording(given, read), captured.edge_count), read)
            before = dict(data)
            found = {name: value for name, value in function(data, leaves).items() if value is not before.get(name)}
            return {name: value if isinstance(value, Tensor) else None for name, value in found.items()}

        self._fill(captured, tensors, self._count(tensors))
        with on_stream(self._stream):
            for _ in range(WARM_UP):
                _differentiated(run(), leaves)
        with capturing(self._stream, pool) as graph:
            results = run()
        backward = captured_backward(results, leaves, self._stream, pool) if leaves else None
        self.captures += 1
        logger.info("captured a CUDA graph for up to %d edges (number %d)", edges, self.captures)
        detached = {name: None if value is None else value.detach() for name, value in results.items()}
        given = {name: given[name] for name in sorted(read & given.keys())}
        return captured._replace(graph=graph, given=given, results=detached, backward=backward)

    def _with_room(self, name: str, value: Tensor, edges: int) -> Tensor:
        """A copy, of zeros where it has no numbers."""
        if name not in self._by_edge:
            return value.clone()
        shape = list(value.shape)
        shape[self._by_edge[name]] = edges
        return value.new_zeros(shape)

    def _fill(self, captured: _Captured, tensors: Data, count: int) -> None:
        captured.edge_count.fill_(count)
        for name, target in captured.given.items():
            if name in self._by_edge:
                target = target.narrow(self._by_edge[name], 0, count)
            target.copy_(tensors[name])


def _differentiated(results: Results, leaves: Sequence[Tensor]) -> None:
    """The work of a backward, if there are leaves."""
    if leaves:
        values = [value for value in results.values() if value is not None and value.requires_grad]
        gradients(values, leaves, [torch.zeros_like(value) for value in values])


def room(edges: int) -> int:
    """How many edges a graph has room for that is captured with so many: large systems need less, in proportion."""
    return edges + math.ceil(min(MOST_ROOM * edges, DEVIATIONS * math.sqrt(edges)))


class _Recording(dict):
    """Tensors in the memory of others, and which of them have been read: a function may make leaves of them, or put
    others into their places."""

    def __init__(self, content: Data, read: set[str]):
        super().__init__({name: value.detach() for name, value in content.items()})
        self.read = read

    def __getitem__(self, name: str) -> Tensor:
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default=None):
        if name in self:
            self.read.add(name)
        return super().get(name, default)
