"""MACE's models as CUDA graphs."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from .._torch import assert_on_device
from ._captured import Captured, beyond, shared_out
from ._replay import Data

CAPTURED = {"training", "compute_force", "compute_virials", "compute_stress", "compute_displacement"}
"""Options of a call that a CUDA graph serves; all others must be off."""
DERIVATIVES = ("compute_force", "compute_virials", "compute_stress")


class Model(Captured):
    """A model whose products are replaced."""

    by_edge: ClassVar = {"edge_index": 1, "shifts": 0, "unit_shifts": 0}
    read = ("positions", "edge_index", "shifts", "cell", "batch")

    def longest_edge(self) -> float:
        return float(self.r_max)

    @staticmethod
    def completed(data: Data, count: Tensor, cutoff: float) -> Data:
        """Structures whose edges from number `count` on join an atom with an image of its own beyond the cutoff, which
        counts nothing."""
        cells = data["cell"].view(-1, 3, 3)
        assert_on_device(
            (cells != 0).any(2).any(1).all(), "cell: cuda_graphs need one, which MACE gives to molecules, too"
        )
        is_own, edge_index, atom = shared_out(data["edge_index"], count, data["positions"].shape[0])
        images, structure = beyond(cells, cutoff), data["batch"][atom]
        others = {"shifts": (images[:, None] @ cells).squeeze(1)[structure], "unit_shifts": images[structure]}
        result = {**data, "edge_index": edge_index}
        for name in others:
            if name in data:
                result[name] = torch.where(is_own[:, None], data[name], others[name].to(data[name].dtype))
        return result

    def uncaptured(self, data: Data, options: dict[str, Any]) -> str:
        others = [name for name, value in options.items() if value and name not in CAPTURED]
        if others:
            return f"{', '.join(others)} is asked for"
        if not self.is_training(options) and not any(
            options.get(name, name == "compute_force") for name in DERIVATIVES
        ):
            return "gradients may be asked of its energy"
        return ""

    def is_training(self, options: dict[str, Any]) -> bool:
        return bool(options.get("training"))
