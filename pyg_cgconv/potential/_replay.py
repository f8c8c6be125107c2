"""Energy and forces as one CUDA graph: the kernels of a small structure take less time than their launches."""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Data

from ..cuda_graphs import capturing, on_stream
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
    edges: int
    stress: bool

    def fits(self, data: Data, stress: bool) -> bool:
        same = (self.atoms, self.stress) == (data.num_nodes, stress)
        return same and self.edges / 2 <= data.num_edges <= self.edges


class Replay:
    """A potential's energy, forces and stress of one structure after the other, on a GPU.

    A graph is captured for a number of atoms, with room for some more edges than there are, and run again for as long
    as neighbour lists fill at least half of it. The rest of the edges join atoms with images of their own
    beyond the cutoff, which count nothing.

    Args:
        potential: on a GPU; with validate = False.
    """

    def __init__(self, potential: Potential):
        self.potential = potential
        self.captures = 0
        self._stream = torch.cuda.Stream(potential.shift.device)
        self._captured: _Captured | None = None
        self._edge_index: Tensor | None = None  # the list that the graph's input was filled with

    def __call__(self, data: Data, compute_stress: bool) -> dict[str, Tensor]:
        """As :meth:`Potential.forward` gives it; the next call overwrites it.

        Args:
            data: from a neighbour list, sorted by target. Its positions may change from call to call; where anything
                else does, ``edge_index`` is another tensor.
        """
        captured = self._fitting(data, compute_stress)
        if captured is None:
            captured = self._capture(data, compute_stress)
        elif data.edge_index is not self._edge_index:
            self._fill(captured, data)
        else:
            captured.input.pos.copy_(data.pos)
        captured.graph.replay()
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

        with on_stream(self._stream):
            for _ in range(WARM_UP):
                compute()
        with capturing(self._stream) as graph:
            output = compute()
        self._captured = _Captured(graph, filled, output, nodes, edges, compute_stress)
        self._edge_index = data.edge_index
        self.captures += 1
        return self._captured

    def _fill(self, captured: _Captured, data: Data) -> None:
        """Puts another list, and whatever came with it, where the graph reads it."""
        for name, value in padded(data, captured.edges, self.potential.cutoff):
            captured.input[name].copy_(value)
        self._edge_index = data.edge_index


def padded(data: Data, edges: int, cutoff: float) -> Data:
    """The structure with so many edges, sorted by target: each that is not its own joins an atom with an image of that
    atom beyond the cutoff. They are shared out to all atoms, because sums over the edges of one take long.

    A structure without a cell gets one, of which only those edges know.

    Args:
        data: sorted by target, with one atom or more.
        edges: at least those of the structure.
    """
    more = edges - data.num_edges
    cell = getattr(data, "cell", None)
    if cell is None:
        cell = 2 * cutoff * torch.eye(3, dtype=data.pos.dtype, device=data.pos.device)[None]
        shift = data.pos.new_zeros(data.num_edges, 3)
    else:
        shift = data.edge_shift
    length, direction = cell[0].norm(dim=-1).max(0)
    far = torch.nn.functional.one_hot(direction, 3) * torch.ceil(2 * cutoff / length)
    atom = torch.arange(more, device=data.pos.device) % data.num_nodes
    edge_index = torch.cat([data.edge_index, atom.expand(2, more)], dim=1)
    order = edge_index[1].argsort(stable=True)
    return Data(
        z=data.z.clone(),
        pos=data.pos.clone(),
        edge_index=edge_index[:, order],
        edge_shift=torch.cat([shift, far.to(shift).expand(more, 3)])[order],
        cell=cell.clone(),
    )
