"""MACE's models: they stay fast where MACE builds them anew, and infer by CUDA graphs where that is asked for."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .._torch import assert_on_device
from ._replacement import Replacement, logger
from ._replay import Data, Replay

CAPTURED = {"compute_force", "compute_virials", "compute_stress", "compute_displacement"}
"""Options of a call that a CUDA graph serves; all others must be off."""
DERIVATIVES = ("compute_force", "compute_virials", "compute_stress")
READ = ("positions", "edge_index", "shifts", "cell", "batch")
"""Tensors that a call needs for one."""


class Model(Replacement):
    """A model whose products are replaced.

    Attributes:
        cuda_graphs: Whether inference of energies, forces and stresses on a GPU is captured.
    """

    prepared = ("_replay", "_signature", "_told")
    told = ("cuda_graphs",)
    cuda_graphs = False

    def prepare(self) -> None:
        self._replay = Replay(
            partial(completed, cutoff=float(self.r_max)), {"edge_index": 1, "shifts": 0, "unit_shifts": 0}
        )
        self._signature = inspect.signature(self.original.forward)
        self._told: set[str] = set()

    def forward(self, data: Data, *arguments: Any, **options: Any) -> dict:
        if self.cuda_graphs:
            given = self._signature.bind(self, data, *arguments, **options).arguments
            for name in ("self", "data"):
                del given[name]
            obstacle = self._obstacle(data, given)
            if not obstacle:
                forward = partial(super().forward, **given)
                return self._replay(forward, dict(data), tuple(sorted(given.items())))
            if obstacle not in self._told:
                self._told.add(obstacle)
                logger.info("%s: not by a CUDA graph, because %s", type(self).__name__, obstacle)
        return super().forward(data, *arguments, **options)

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

    def _obstacle(self, data: Data, given: dict[str, Any]) -> str:
        """Why no graph serves the call; empty if one does."""
        others = [name for name, value in given.items() if value and name not in CAPTURED]
        if others:
            return f"{', '.join(others)} is asked for"
        if not any(given.get(name, name == "compute_force") for name in DERIVATIVES):
            return "gradients may be asked of its energy"
        missing = [name for name in READ if name not in data]
        if missing:
            return f"data has no {', '.join(missing)}"
        if not data["positions"].is_cuda:
            return "its data are on a CPU"
        if not data["edge_index"].shape[1]:
            return "there are no edges"
        if torch.compiler.is_compiling() or torch.cuda.is_current_stream_capturing():
            return "it is part of a larger program"
        return ""


def completed(data: Data, count: Tensor, cutoff: float) -> Data:
    """Structures whose edges from number `count` on are not theirs: each of these joins an atom with an image of its
    own beyond the cutoff, which counts nothing. They are shared out to all atoms, because sums over the edges of one
    take long. Nothing here waits for the GPU."""
    edges, atoms, cells = data["edge_index"].shape[1], data["positions"].shape[0], data["cell"].view(-1, 3, 3)
    length, direction = cells.norm(dim=-1).max(1)
    assert_on_device((length > 0).all(), "cell: cuda_graphs need one, which MACE gives to molecules, too")
    images = torch.nn.functional.one_hot(direction, 3) * torch.ceil(2 * cutoff / length)[:, None]
    number = torch.arange(edges, device=cells.device)
    is_own, atom = (number < count)[:, None], number % atoms
    structure = data["batch"][atom]
    others = {"shifts": (images[:, None] @ cells).squeeze(1)[structure], "unit_shifts": images[structure]}
    result = {**data, "edge_index": torch.where(is_own.T, data["edge_index"], atom)}
    for name in others:
        if name in data:
            result[name] = torch.where(is_own, data[name], others[name].to(data[name].dtype))
    return result
