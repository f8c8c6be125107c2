"""A model of another package, whose inference on a GPU is captured in CUDA graphs where that is asked for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ._replacement import Replacement, logger
from ._replay import Data, Replay


class Captured(Replacement):
    """A model that takes a dictionary of tensors, and gives one.

    Attributes:
        cuda_graphs: Whether inference is captured.
        by_edge: The names of tensors that have a number for each edge, and their dimension of edges; the list of edges
            is the first.
        read: The names of tensors that a call needs for a graph; the first one tells where they are.
    """

    prepared: ClassVar[tuple[str, ...]] = ("_cutoff", "_replay", "_signature", "_told", "_stores", "_read_at")
    told = ("cuda_graphs",)
    cuda_graphs = False
    by_edge: ClassVar[Mapping[str, int]]
    read: ClassVar[tuple[str, ...]]

    def prepare(self) -> None:
        self._replay = Replay(self.by_edge)
        self._cutoff = self.longest_edge()  # which a GPU may have to be asked for, and not during a capture
        self._signature = inspect.signature(self.original.forward)
        self._told: set[str] = set()
        self._stores = [each for module in self.modules() for each in (module._parameters, module._buffers) if each]
        self._read_at = self._places()

    def longest_edge(self) -> float:
        """The cutoff."""
        raise NotImplementedError

    @staticmethod
    def completed(data: Data, count: Tensor, cutoff: float) -> Data:
        """Structures whose edges from number `count` on are not theirs, and count nothing. Nothing here may wait for
        the GPU."""
        raise NotImplementedError

    def inputs(self, data: Any) -> Data:
        """What a graph is given of the data."""
        return dict(data)

    def results(self, data: Any, found: dict) -> Any:
        """What is returned, of the results of a graph."""
        return found

    def uncaptured(self, data: Any, options: dict[str, Any]) -> str:
        """Why no graph serves a call with these options; empty if one may."""
        return ""

    def forward(self, data: Any, *arguments: Any, **named: Any) -> Any:
        if self.cuda_graphs:
            _, _, *options = self._signature.bind(self, data, *arguments, **named).arguments.items()
            why = self._obstacle(data, dict(options))
            if not why:
                if self._read_at != self._places():
                    self.prepare()  # others have been put into the place of parameters that graphs read
                function: Callable = partial(super().forward, **dict(options))
                completed = partial(self.completed, cutoff=self._cutoff)
                found = self._replay(function, completed, self.inputs(data), tuple(sorted(options)))
                return self.results(data, found)
            if why not in self._told:
                self._told.add(why)
                logger.info("%s: not by a CUDA graph, because %s", type(self).__name__, why)
        return super().forward(data, *arguments, **named)

    def _obstacle(self, data: Any, options: dict[str, Any]) -> str:
        missing = [name for name in self.read if name not in data]
        if missing:
            return f"data has no {', '.join(missing)}"
        why = self.uncaptured(data, options)
        if why:
            return why
        if not data[self.read[0]].is_cuda:
            return "its data are on a CPU"
        edges, dim = next(iter(self.by_edge.items()))
        if not data[edges].shape[dim]:
            return "there are no edges"
        if torch.compiler.is_compiling() or torch.cuda.is_current_stream_capturing():
            return "it is part of a larger program"
        return ""

    def _places(self) -> list[int]:
        """Where in memory the parameters and buffers are."""
        return [tensor.data_ptr() for store in self._stores for tensor in store.values() if tensor is not None]

    def _apply(self, *arguments: Any, **named: Any) -> Any:
        """Moved or converted: captured graphs would read where the parameters were."""
        super()._apply(*arguments, **named)
        self.prepare()
        return self

    def load_state_dict(self, *arguments: Any, **named: Any) -> Any:
        """May put other parameters into the place of these."""
        result = super().load_state_dict(*arguments, **named)
        self.prepare()
        return result


def beyond(cells: Tensor, cutoff: float) -> Tensor:
    """Of each cell (n, 3, 3) the integers (n, 3) of an image farther away than the cutoff."""
    length, direction = cells.norm(dim=-1).max(1)
    images = nn.functional.one_hot(direction, 3) * torch.ceil(2 * cutoff / length)[:, None]
    return images.to(cells.dtype)


def shared_out(edge_index: Tensor, count: Tensor, atoms: int) -> tuple[Tensor, Tensor, Tensor]:
    """Edges from number `count` on join each atom with itself, in turn: sums over the edges of one atom take long.

    Returns:
        Which edges are the structures' own (E,), the edges (2, E), and the atoms (E,) of the others.
    """
    number = torch.arange(edge_index.shape[1], device=edge_index.device)
    is_own, atom = number < count, number % atoms
    return is_own, torch.where(is_own, edge_index, atom), atom
