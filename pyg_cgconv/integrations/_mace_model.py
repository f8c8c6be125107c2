"""MACE's models as CUDA graphs."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from mace import modules
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .._torch import assert_on_device
from ._captured import Captured, beyond, shared_out
from ._replay import Data

CAPTURED = {"training", "compute_force", "compute_virials", "compute_stress", "compute_displacement"}
"""Options of a call that a CUDA graph serves; all others must be off."""
SERVED = modules.MACE, modules.ScaleShiftMACE
"""Models that read nothing but what is named below."""
DERIVATIVES = ("compute_force", "compute_virials", "compute_stress")


class LookUps(TorchFunctionMode):
    """Within it, rows and numbers that an index looks up are selected. Gradients of a selection are additions; those of
    an index are sorted first, in a dozen operations. Indices must not be negative, as those of MACE are not."""

    def __torch_function__(self, function, types, arguments=(), named=None):
        if function is Tensor.__getitem__ and arguments[0].requires_grad:
            x, index = arguments
            if _is_list(index):
                return x.index_select(0, index)
            if isinstance(index, tuple) and len(index) == x.dim() == 2 and all(map(_is_list, index)):
                return x.reshape(-1).index_select(0, index[0] * x.shape[1] + index[1])
        return function(*arguments, **(named or {}))


def _is_list(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dim() == 1 and index.dtype == torch.int64


class Model(Captured):
    """A model whose products are replaced."""

    recorded_in = LookUps

    by_edge: ClassVar = {"edge_index": 1, "shifts": 0, "unit_shifts": 0}
    by_atom = ("batch", "positions", "node_attrs")
    by_structure = ("cell", "head")
    read = ("positions", "edge_index", "shifts", "cell", "batch", "ptr")

    def serves_other_numbers(self) -> bool:
        return self.original in SERVED and not hasattr(self, "joint_embedding")

    def structures(self, data: Data) -> int:
        return data["ptr"].shape[0] - 1

    def with_one_more(self, data: Data, count: Tensor) -> Data:
        ptr = data["ptr"]
        return super().with_one_more(data, count) | {"ptr": torch.cat([ptr, ptr[-1:] + data["batch"].shape[0] - count])}

    def inputs(self, data: Data) -> Data:
        if not self.serves_other_numbers():
            return dict(data)
        names = *self.by_edge, *self.by_atom, *self.by_structure, "ptr"
        return {name: data[name] for name in names if name in data}

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
