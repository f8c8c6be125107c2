"""What a device's module makes of a contraction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from cuda_kernels.contraction import Contraction
from cuda_kernels.problem import Problem, base

from ._edges import Graph
from ._shapes import STORED


class Plan(Protocol):
    """A contraction on one device, ready to run."""

    def __call__(self, inputs: Sequence[Tensor], graph: Graph | None) -> list[Tensor]:
        """The outputs, from tensors in the order of the contraction's inputs; no gradients are recorded."""


class Widened:
    """A contraction whose kernels do not read some operands as they are stored: these are converted before it, and its
    results after it."""

    def __init__(self, plan: Plan, stored: Problem, known: Problem, contraction: Contraction):
        converted = {
            operand.name: STORED[operand.stored]
            for operand in stored.operands
            if operand.stored and not known.operand(operand.name).stored
        }
        self._plan = plan
        self._inputs = [n for n, name in enumerate(contraction.inputs) if base(name) in converted]
        self._outputs = [
            (n, converted[base(name)]) for n, name in enumerate(contraction.outputs) if base(name) in converted
        ]

    def __call__(self, inputs: Sequence[Tensor], graph: Graph | None) -> list[Tensor]:
        values = list(inputs)
        for n in self._inputs:
            values[n] = values[n].to(torch.float32)
        results = self._plan(values, graph)
        for n, dtype in self._outputs:
            results[n] = results[n].to(dtype)
        return results
