"""A model of another package, captured in CUDA graphs on a GPU where that is asked for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule

from .._torch import in_forward_mode, is_plain, packs_saved_tensors
from ._replacement import Replacement, hooks_of, logger
from ._replay import Data, Replay, Results


class Captured(Replacement):
    """A model that takes a dictionary of tensors, and gives one.

    Attributes:
        cuda_graphs: Whether calls are captured.
        recorded_in: In what context the model is called for a capture.
        by_edge: The names of tensors that have a number for each edge, and their dimension of edges; the list of edges
            is the first.
        by_atom: The names of tensors that have a row for each atom; the first is the number of its structure.
        by_structure: The names of tensors that have a row, or as many, for each structure.
        read: The names of tensors that a call needs for a graph; the first one tells where they are.
    """

    prepared: ClassVar[tuple[str, ...]] = (
        "_cutoff", "_replay", "_signature", "_told", "_parts", "_stores", "_children", "_hooks", "_read_at"
    )  # fmt: skip
    told = ("cuda_graphs",)
    cuda_graphs = False
    recorded_in: Callable[[], AbstractContextManager] = nullcontext
    by_edge: ClassVar[Mapping[str, int]]
    by_atom: tuple[str, ...]
    by_structure: tuple[str, ...]
    read: ClassVar[tuple[str, ...]]

    def prepare(self) -> None:
        self._replay = Replay(self.by_edge)
        self._cutoff = self.longest_edge()  # which a GPU may have to be asked for, and not during a capture
        self._signature = inspect.signature(self.original.forward)
        self._told: set[str] = set()
        modules = [module for module in self.modules() if not isinstance(module, ScriptModule)]
        scripted = [module for module in self.modules() if isinstance(module, ScriptModule)]
        self._stores = [each for module in modules for each in (module._parameters, module._buffers)]
        self._stores += [each for module in scripted for each in (module._parameters, module._buffers) if each]
        self._children = [module._modules for module in modules if module._modules]
        self._parts = modules[1:]
        self._hooks = [hooks for module in self._parts for hooks in hooks_of(module)]
        self._read_at = self._places()

    def longest_edge(self) -> float:
        """The cutoff."""
        raise NotImplementedError

    @staticmethod
    def completed(data: Data, count: Tensor, cutoff: float) -> Data:
        """Structures whose edges from number `count` on are not theirs, and count nothing. Nothing here may wait for
        the GPU."""
        raise NotImplementedError

    def serves_other_numbers(self) -> bool:
        """Whether a graph may have atoms beyond those of the structures."""
        return True

    def structures(self, data: Data) -> int:
        """How many there are, by the shape of something."""
        raise NotImplementedError

    def with_one_more(self, data: Data, count: Tensor) -> Data:
        """Structures, and one more of the atoms from number `count` on: like the first atom, in the first cell."""
        structures, (batch, *others) = self.structures(data), self.by_atom
        atoms = data[batch].shape[0]
        is_own = torch.arange(atoms, device=data[batch].device) < count
        result = data | {batch: torch.where(is_own, data[batch], structures)}
        for name in (name for name in others if name in data):
            result[name] = torch.where(is_own.view(-1, *[1] * (data[name].dim() - 1)), data[name], data[name][:1])
        for name in (name for name in self.by_structure if name in data):
            rows = data[name].shape[0] // structures
            result[name] = torch.cat([data[name], data[name][:rows]])
        return result

    def inputs(self, data: Any) -> Data:
        """What a graph is given of the data."""
        return dict(data)

    def is_returned(self, name: str) -> bool:
        """Whether callers see a result of that name. They do not see those of edges, of which a graph has others."""
        return True

    def results(self, data: Any, found: dict) -> Any:
        """What is returned, of the results of a graph."""
        return found

    def uncaptured(self, data: Any, options: dict[str, Any]) -> str:
        """Why no graph serves a call with these options; empty if one may."""
        return ""

    def is_training(self, options: dict[str, Any]) -> bool:
        """Whether gradients by parameters are asked of the results of a call with these options."""
        return self.training

    def forward(self, data: Any, *arguments: Any, **named: Any) -> Any:
        if self.cuda_graphs and not torch.compiler.is_compiling():
            _, _, *bound = self._signature.bind(self, data, *arguments, **named).arguments.items()
            options = dict(bound)
            with self._replay.lock:
                found = self._served(data, options)
            if isinstance(found, dict):
                return self.results(data, found)
            why = found
            if why not in self._told:
                self._told.add(why)
                logger.info("%s: not by a CUDA graph, because %s", type(self).__name__, why)
        return super().forward(data, *arguments, **named)

    def _served(self, data: Any, options: dict[str, Any]) -> dict | str:
        """The results of a call by a graph, or why none serves it."""
        why = self._obstacle(data, options)
        if why:
            return why
        inputs, parameters = self.inputs(data), []
        if self.is_training(options):
            parameters = self._trained()
            why = self._obstacle_to_training(inputs, parameters)
        found = None if why else self._captured(inputs, options, parameters)
        return found or why or "too many graphs were captured for the calls that they served"

    def _captured(self, inputs: Data, options: dict[str, Any], parameters: Sequence[Tensor] = ()) -> dict | None:
        if self._read_at != self._places():
            self.prepare()  # others are in the place of parameters or modules that graphs were made of
        forward: Callable = partial(super().forward, **options)

        def function(given: Data, leaves: Sequence[Tensor]) -> Results:
            with _exchanged(self._stores, parameters, leaves), self.recorded_in():
                return {name: value for name, value in forward(given).items() if self.is_returned(name)}

        def completed(given: Data, edges: Tensor, atoms: Tensor) -> Data:
            return self.completed(self.with_one_more(given, atoms) if by_atom else given, edges, self._cutoff)

        by_atom = self._with_room_for(inputs)
        check_numbers(inputs, self.by_edge, "edges")
        check_numbers(inputs, dict.fromkeys(by_atom, 0), "atoms")
        settings = tuple(sorted(options.items())), tuple([module.training for module in self._parts])
        found = self._replay(function, completed, inputs, settings, parameters, by_atom)
        if found is None or not by_atom:
            return None if found is None else found.results
        structures = self.structures(inputs)
        own = {found.atoms: inputs[by_atom[0]].shape[0], structures + 1: structures}
        return {name: _first(value, own) for name, value in found.results.items()}

    def _with_room_for(self, inputs: Data) -> list[str]:
        """The names of what a graph has room for more atoms of. Without atoms in some structures, there may be as many
        rows of atoms as of structures, and results do not tell which they have."""
        if not self.serves_other_numbers() or self.structures(inputs) > inputs[self.by_atom[0]].shape[0]:
            return []
        return [name for name in self.by_atom if name in inputs]

    def _trained(self) -> list[Tensor]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def _obstacle(self, data: Any, options: dict[str, Any]) -> str:
        missing = [name for name in self.read if name not in data]
        if missing:
            return f"data has no {', '.join(missing)}"
        why = self.uncaptured(data, options)
        if why:
            return why
        if getattr(self, "_is_replica", False):
            return "it is a replica that DataParallel makes for a call"
        where = data[self.read[0]].device.type
        if not is_plain(data[self.read[0]]) or in_forward_mode():
            return "what it does is traced or transformed"
        if torch.is_autocast_enabled(where):
            return "autocast is on, which keeps converted parameters for some calls"
        if any(self._hooks):
            return "modules in it have hooks, which a graph does not call"
        if where != "cuda":
            return "its data are on a CPU"
        edges, dim = next(iter(self.by_edge.items()))
        if not data[edges].shape[dim]:
            return "there are no edges"
        return "it is part of a larger graph" if torch.cuda.is_current_stream_capturing() else ""

    def _obstacle_to_training(self, inputs: Data, parameters: Sequence[Tensor]) -> str:
        asked_for = [name for name, value in inputs.items() if _requires_grad(value)]
        if asked_for:
            return f"gradients may be asked of it by {', '.join(asked_for)}"
        if not torch.is_grad_enabled():
            return "gradients are off, though it is in training"
        if packs_saved_tensors():
            return "hooks replace what autograd saves, as in torch.utils.checkpoint"
        if not parameters or not all(parameter.is_leaf for parameter in parameters):
            return "its parameters are not leaves that ask for gradients"
        return "gradients of an earlier call may still be asked for" if self._replay.is_taken else ""

    def _places(self) -> tuple[list[int], list[nn.Module | None]]:
        """Where in memory the parameters and buffers are, and the modules that have them."""
        places = [tensor.data_ptr() for store in self._stores for tensor in store.values() if tensor is not None]
        return places, [module for children in self._children for module in children.values()]

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


def check_numbers(inputs: Data, dims: Mapping[str, int], what: str) -> None:
    """Raises a ValueError unless all tensors have as many rows as the first: those left are an earlier call's."""
    numbers = {name: tuple(inputs[name].shape[dim : dim + 1]) for name, dim in dims.items() if name in inputs}
    for name, number in numbers.items():
        if number != next(iter(numbers.values())):
            first = next(iter(numbers))
            raise ValueError(
                f"{name}: expected the {what} of {first}, {tuple(inputs[first].shape)}, got {tuple(inputs[name].shape)}"
            )


def _first(value: Tensor | None, lengths: Mapping[int, int]) -> Tensor | None:
    """As many rows as belong to those that there are."""
    if value is None or not value.dim() or value.shape[0] not in lengths:
        return value
    return value[: lengths[value.shape[0]]]


def _requires_grad(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


@contextmanager
def _exchanged(
    stores: Iterable[MutableMapping[str, Any]], parameters: Iterable[Tensor], others: Iterable[Tensor]
) -> Iterator[None]:
    """Others are in the places of the parameters."""
    instead = {id(parameter): other for parameter, other in zip(parameters, others, strict=True)}
    places = [(store, name, each) for store in stores for name, each in store.items() if id(each) in instead]
    for store, name, parameter in places:
        store[name] = instead[id(parameter)]
    try:
        yield
    finally:
        for store, name, parameter in places:
            store[name] = parameter


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
