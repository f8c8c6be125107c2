"""MACE's low-rank adaptation (LoRA) of the networks that make weights of radial functions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _fully_connected

try:
    from mace.modules.lora import LoRAFCLayer
except ImportError:  # before 0.3.15
    LoRAFCLayer = None


class FullyConnectedNet(_fully_connected.FullyConnectedNet):
    r"""A network of which layers may be adapted: such a one has the weight :math:`W + s A B`."""

    @staticmethod
    def layer_of(part: Any) -> Any:
        return part.base if type(part) is LoRAFCLayer else part

    @staticmethod
    def weight_of(part: Any) -> Tensor:
        if type(part) is not LoRAFCLayer:
            return part.weight
        return torch.addmm(part.base.weight, part.lora_A, part.lora_B, alpha=part.scaling)
