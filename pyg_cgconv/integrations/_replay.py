"""A model as one CUDA graph, or two with gradients: small systems wait for launches, not for kernels."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from ..cuda_graphs import Patience, capturing, rehearsing
from ._gradients import Backward, Differentiable, Turns, captured_backward, gradients
from ._replacement import logger

Data = dict[str, Tensor]
Results: TypeAlias = dict[str, Tensor | None]
Function: TypeAlias = Callable[[Data, Sequence[Tensor]], Results]
Completed: TypeAlias = Callable[[Data, Tensor, Tensor], Data]

MOST_ROOM = 0.1
"""Edges or atoms that a graph has room for beyond those that it was captured with, in units of these."""
DEVIATIONS = 10
"""The same in units of the square root of their number, which numbers of pairs at random would vary by."""
FILLERS = 2
"""Atoms beyond their number that a graph has room for as long as this number stays. So there are always more of them
than structures."""
KEPT = 4
"""Graphs at a time. They share the memory of intermediate results, because they run one after the other."""
WARM_UP = 3
"""Calls before a capture: kernels are compiled at the first one; at the next ones e3nn's TorchScript specialises."""


class Sizes(NamedTuple):
    """How many edges and atoms there are, or there is room for; no atoms if a graph serves one number of them."""

    edges: int
    atoms: int

    def near(self, rooms: Sizes) -> bool:
        """Whether these fill at least half of the rooms, or go beyond."""
        return all(room <= 2 * size for size, room in zip(self, rooms, strict=True))

    def fit(self, rooms: Sizes) -> bool:
        return all(size <= room for size, room in zip(self, rooms, strict=True))


class Found(NamedTuple):
    """Results with those of fillers, and how many atoms there are with these; none if the graph has no fillers."""

    results: Results
    atoms: int


class _Captured(NamedTuple):
    """A graph, what it reads and writes, how much it has room for, and what makes gradients by parameters."""

    graph: torch.cuda.CUDAGraph
    given: Data
    counts: Tensor
    results: Results
    rooms: Sizes
    backward: Backward | None


class Replay(Patience):
    """A function of dictionaries of tensors, captured once for each kind of them and then launched as a whole.

    Args:
        by_edge: The names of tensors that have a number for each edge, and their dimension of edges. The first one
            tells how many edges there are.

    Attributes:
        lock: To be held from the question whether it is taken to the end of a call: its memory serves one at a time.
    """

    def __init__(self, by_edge: Mapping[str, int]):
        self._by_edge, self.lock = by_edge, threading.RLock()
        self._known: OrderedDict[tuple[Hashable, Sizes], _Captured] = OrderedDict()
        self._stream: torch.cuda.Stream | None = None
        self._pools: dict[bool, Any] = {}
        self._used_on: torch.cuda.Stream | None = None
        self._turns = Turns()
        super().__init__()

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
        by_atom: Sequence[str] = (),
    ) -> Found | None:
        """What the function returns for the data, in memory of its own; None if captures have not paid.

        Args:
            function: of data, and of leaves that stand for the parameters and lie where they do. Of the parameters
                themselves other derivatives may know, which a capture must not wait for.
            completed: of a dictionary with room for more edges and atoms, and how many it has of each, makes one whose
                other edges change nothing, and whose other atoms are one structure more. It is captured, too.
            options: whatever else the function depends on.
            parameters: leaves of which the function has gradients. Without them its results have none.
            by_atom: The names of tensors that have a row for each atom; without any, a graph serves one number of them.
        """
        tensors = {name: value for name, value in data.items() if isinstance(value, Tensor)}
        sizes = self._sizes(tensors, by_atom)
        asked_for = tuple([parameter.data_ptr() for parameter in parameters])
        settings = options, torch.are_deterministic_algorithms_enabled(), _uses_tf32()
        key = settings, asked_for, tuple([self._signature(name, value, by_atom) for name, value in tensors.items()])
        near = [known for known in self._known if known[0] == key and sizes.near(known[1])]
        place = next((known for known in near if sizes.fit(known[1])), None)
        if place is None:
            if not self.pays(sizes.atoms):
                return None
            rooms = _rooms(sizes, [rooms for _, rooms in near])
            for known in near:
                del self._known[known]  # its memory is free before more is asked for
            place = key, rooms
            self._known[place] = self._capture(function, completed, tensors, rooms, parameters, by_atom)
        self._known.move_to_end(place)
        captured = self._known[place]
        self._after_the_last_call(captured.counts.device)
        self._fill(captured, tensors, sizes)
        self.replays += 1
        return Found(_replayed(captured, self._turns, parameters), captured.rooms.atoms)

    def _sizes(self, tensors: Data, by_atom: Sequence[str]) -> Sizes:
        name, dim = next(iter(self._by_edge.items()))
        return Sizes(tensors[name].shape[dim], tensors[by_atom[0]].shape[0] if by_atom else 0)

    def _after_the_last_call(self, device: torch.device) -> None:
        """A call on another stream than the last one waits for it: both use the same memory."""
        if device.type != "cuda":
            return
        stream = torch.cuda.current_stream(device)
        if self._used_on is not None and self._used_on != stream:
            stream.wait_stream(self._used_on)
        self._used_on = stream

    def _signature(self, name: str, value: Tensor, by_atom: Sequence[str]) -> tuple:
        """What must be the same of a tensor for the same graph."""
        shape = list(value.shape)
        if name in self._by_edge:
            shape[self._by_edge[name]] = -1
        elif name in by_atom:
            shape[0] = -1
        return name, value.dtype, value.device, *shape

    def _capture(
        self,
        function: Function,
        completed: Completed,
        tensors: Data,
        rooms: Sizes,
        parameters: Sequence[Tensor],
        by_atom: Sequence[str],
    ) -> _Captured:
        while len(self._known) >= KEPT:
            self._known.popitem(last=False)
        device = next(iter(tensors.values())).device
        if self._stream is None or self._stream.device != device:
            self._stream, self._pools = torch.cuda.Stream(device), {}
        # Intermediate results outlive a graph if another one makes gradients of them.
        pool = self._pools.setdefault(bool(parameters), torch.cuda.graph_pool_handle())
        given = {name: self._with_room(name, value.detach(), rooms, by_atom) for name, value in tensors.items()}
        counts = torch.zeros(2, dtype=torch.int64, device=device)
        captured = _Captured(torch.cuda.CUDAGraph(), given, counts, {}, rooms, None)
        read: set[str] = set()
        leaves = [parameter.detach().requires_grad_() for parameter in parameters]

        def run() -> Results:
            data = _Recording(completed(_Recording(given, read), counts[0], counts[1]), read)
            before = dict(data)
            found = {name: value for name, value in function(data, leaves).items() if value is not before.get(name)}
            return {name: value if isinstance(value, Tensor) else None for name, value in found.items()}

        self._fill(captured, tensors, self._sizes(tensors, by_atom))
        with rehearsing(self._stream):
            for _ in range(WARM_UP):
                _differentiated(run(), leaves)
        with capturing(self._stream, pool) as graph:
            results = run()
        backward = captured_backward(results, leaves, self._stream, pool) if leaves else None
        self.captures += 1
        logger.info("captured a CUDA graph for up to %d edges (number %d)", rooms.edges, self.captures)
        detached = {name: None if value is None else value.detach() for name, value in results.items()}
        given = {name: given[name] for name in sorted(read & given.keys())}
        return captured._replace(graph=graph, given=given, results=detached, backward=backward)

    def _with_room(self, name: str, value: Tensor, rooms: Sizes, by_atom: Sequence[str]) -> Tensor:
        """A copy, of zeros where it has no numbers."""
        shape = list(value.shape)
        if name in self._by_edge:
            shape[self._by_edge[name]] = rooms.edges
        elif name in by_atom:
            shape[0] = rooms.atoms
        return value.new_zeros(shape)

    def _fill(self, captured: _Captured, tensors: Data, sizes: Sizes) -> None:
        for count, size in zip(captured.counts, sizes, strict=True):
            count.fill_(size)
        for name, target in captured.given.items():
            value = tensors[name]
            dim = self._by_edge.get(name, 0)
            if value.dim():
                target = target.narrow(dim, 0, value.shape[dim])
            target.copy_(value)


def _uses_tf32() -> bool:
    """Whether a GPU computes matrix products of float32 in TF32."""
    products = torch.backends.cuda.matmul
    # PyTorch 2.9 and later do not tell the old setting once somebody has used the new one.
    return products.fp32_precision == "tf32" if hasattr(products, "fp32_precision") else products.allow_tf32


def _replayed(captured: _Captured, turns: Turns, parameters: Sequence[Tensor]) -> Results:
    """Copies of the results, after a replay."""
    backward, results = captured.backward, captured.results
    if backward is None:
        captured.graph.replay()
        return {name: None if value is None else value.clone() for name, value in results.items()}
    read = [results[name] for name in backward.names]
    copies = Differentiable.apply(captured.graph, read, backward, turns.begin(), *parameters)
    found = dict(zip(backward.names, copies, strict=True))
    return {
        name: found[name] if name in found else None if value is None else value.clone()
        for name, value in results.items()
    }


def _differentiated(results: Results, leaves: Sequence[Tensor]) -> None:
    """The work of a backward, if there are leaves."""
    if leaves:
        values = [value for value in results.values() if value is not None and value.requires_grad]
        gradients(values, leaves, [torch.zeros_like(value) for value in values])


def room(count: int) -> int:
    """Of how many edges or atoms a graph has room for that is captured with so many: large systems need less, in
    proportion."""
    return count + math.ceil(min(MOST_ROOM * count, DEVIATIONS * math.sqrt(count)))


def _rooms(sizes: Sizes, known: list[Sizes]) -> Sizes:
    """Those of a graph in the place of known ones, which others of these sizes will fit. The number of atoms stays, as
    far as is known, until it changes."""
    if not known:
        return Sizes(room(sizes.edges), sizes.atoms and sizes.atoms + FILLERS)
    edges, atoms = (max(rooms) for rooms in zip(*known, strict=True))
    return Sizes(
        edges if sizes.edges <= edges else room(sizes.edges),
        atoms if sizes.atoms <= atoms else max(room(sizes.atoms), sizes.atoms + FILLERS),
    )


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
