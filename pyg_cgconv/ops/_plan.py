"""What a device's module makes of a contraction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from ._edges import Graph


class Plan(Protocol):
    """A contraction on one device, ready to run."""

    def __call__(self, inputs: Sequence[Tensor], graph: Graph | None) -> list[Tensor]:
        """The outputs, from tensors in the order of the contraction's inputs; no gradients are recorded."""
