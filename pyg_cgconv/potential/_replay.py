"""Energy and forces as one CUDA graph: the kernels of a small structure take less time than their launches."""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Data

from ..cuda_graphs import Patience, capturing, rehearsing
from ._potential import Potential

MAX_EDGES = 100_000
"""Structures with more keep a GPU busy for about as long as the launches take (14 ms with four blocks of 128 channels
on an H200): an estimate, not a measurement. A graph keeps the memory of its intermediate results."""

ROOM = 1.1
"""Edges of a graph by those of the list that it was made for: later lists of the same atoms differ by a few percent."""

WARM_UP = 3
"""Calls before a capture: kernels are compiled at the first one, and what TorchScript specialises, for the reference
backend, at the second."""


class _Captured(NamedTuple):
    """A graph, what it reads and writes, and what it was captured for."""

    graph: torch.cuda.CUDAGraph
    input: Data
    output: dict[str, Tensor]
    atoms: int
    structures: int
    edges: int
    stress: bool

    def fits(self, data: Data, stress: bool) -> bool:
        same = (self.atoms, self.structures, self.stress) == (data.num_nodes, _structures(data), stress)
        return same and self.edges / 2 <= data.num_edges <= self.edges


def _structures(data: Data) -> int:
    """How many there are; a batch has its ``ptr``."""
    return 1 if "ptr" not in data else len(data.ptr) - 1


class Replay(Patience):
    """A potential's energy, forces and stress of one structure after the other, or one batch, on a GPU.

    A graph is captured for a number of atoms and structures, with room for some more edges than there are, and run
    again for as long as neighbour lists fill at least half of it. The rest of the edges join atoms with images of their
    own beyond the cutoff, which count nothing.

    Args:
        potential: on a GPU; with validate = False.
    """

    def __init__(self, potential: Potential):
        self.potential = potential
        super().__init__()
        self._stream = torch.cuda.Stream(potential.shift.device)
        self._captured: _Captured | None = None
        self._edge_index: Tensor | None = None  # the list that the graph's input was filled with

    def serves(self, data: Data, compute_stress: bool) -> bool:
        """Whether there is a graph for ``data``, or it pays to capture one; the first time that it does not, a warning
        says so."""
        if not 0 < data.num_edges <= min(MAX_EDGES, self.potential.edges_at_a_time or MAX_EDGES):
            return False
        size = (data.num_nodes, _structures(data), compute_stress)
        return self._fitting(data, compute_stress) is not None or self.pays(size)

    def __call__(self, data: Data, compute_stress: bool) -> dict[str, Tensor]:
        """As :meth:`Potential.forward` gives it; the next call overwrites it.

        Args:
            data: from a neighbour list, sorted by target; of several structures with ``batch``, sorted, and ``ptr``
                on the host. Its positions may change from call to call; where anything else does, ``edge_index`` is
                another tensor.
        """
        captured = self._fitting(data, compute_stress)
        if captured is None:
            captured = self._capture(data, compute_stress)
        elif data.edge_index is not self._edge_index:
            self._fill(captured, data)
        else:
            captured.input.pos.copy_(data.pos)
        captured.graph.replay()
        self.replays += 1
        return captured.output

    def __reduce__(self):
        return Replay, (self.potential,)  # a copy captures graphs of its own

    def _fitting(self, data: Data, compute_stress: bool) -> _Captured | None:
        captured = self._captured
        return captured if captured is not None and captured.fits(data, compute_stress) else None

    def _capture(self, data: Data, compute_stress: bool) -> _Captured:
        self._captured = None  # its memory is free before more is asked for
        edges, nodes = math.ceil(ROOM * data.num_edges), data.num_nodes
        filled = padded(data, edges, self.potential.cutoff)
        structure = copy.copy(filled)
        structure.edge_index = EdgeIndex(filled.edge_index, sparse_size=(nodes, nodes), sort_order="col")  # same memory

        def compute():
            return self.potential(structure, compute_stress=compute_stress)

        with rehearsing(self._stream):
            for _ in range(WARM_UP):
                compute()
        with capturing(self._stream) as graph:
            output = compute()
        self._captured = _Captured(graph, filled, output, nodes, _structures(data), edges, compute_stress)
        self._edge_index = data.edge_index
        self.captures += 1
        return self._captured

    def _fill(self, captured: _Captured, data: Data) -> None:
        """Puts another list, and whatever came with it, where the graph reads it."""
        for name, value in padded(data, captured.edges, self.potential.cutoff):
            captured.input[name].copy_(value)
        self._edge_index = data.edge_index


def padded(data: Data, edges: int, cutoff: float) -> Data:
    """The structures with so many edges, sorted by target: each that is not their own joins an atom with an image of
    that atom beyond the cutoff. They are shared out to all atoms, because sums over the edges of one take long.

    Structures without cells get some, of which only those edges know.

    Args:
        data: sorted by target, with one atom or more.
        edges: at least those of the structures.
    """
    more = edges - data.num_edges
    cell = getattr(data, "cell", None)
    if cell is None:
        cell = 2 * cutoff * torch.eye(3, dtype=data.pos.dtype, device=data.pos.device).repeat(_structures(data), 1, 1)
        shift = data.pos.new_zeros(data.num_edges, 3)
    else:
        shift = data.edge_shift
    length, direction = cell.norm(dim=-1).max(dim=-1)
    far = torch.nn.functional.one_hot(direction, 3) * torch.ceil(2 * cutoff / length)[:, None]
    atom = torch.arange(more, device=data.pos.device) % data.num_nodes
    far = far.expand(more, 3) if len(far) == 1 else far[data.batch[atom]]
    edge_index = torch.cat([data.edge_index, atom.expand(2, more)], dim=1)
    order = edge_index[1].argsort(stable=True)
    batched = {name: data[name].clone() for name in ("batch", "ptr") if name in data}
    return Data(
        z=data.z.clone(),
        pos=data.pos.clone(),
        edge_index=edge_index[:, order],
        edge_shift=torch.cat([shift, far.to(shift)])[order],
        cell=cell.clone(),
        **batched,
    )
