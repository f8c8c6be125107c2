"""Means over an epoch that nobody waits for: summed where the numbers are, read once."""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor
from torch.nn import ModuleDict
from torchmetrics import Metric


class EpochMean(Metric):
    """A total over a count, both float64 on the device of the module.

    Its memory stays the same for its whole life, :meth:`reset` included: a captured CUDA graph that adds to it goes on
    adding to it. (torchmetrics' MeanMetric takes new memory, and drops the weights if it is not to look for NaN.)
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self):
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, total: Tensor, count: Tensor) -> None:
        """Adds ``count`` numbers that sum to ``total``, both scalars."""
        self.total += total
        self.count += count

    def compute(self) -> Tensor:
        """The mean; NaN if nothing was counted."""
        return self.total / self.count

    @property
    def update_called(self) -> bool:
        return True  # a replayed update is not seen from Python

    def reset(self) -> None:
        total, count = self.total, self.count
        super().reset()
        self.total, self.count = total.zero_(), count.zero_()


class EpochMeans(ModuleDict):
    """An :class:`EpochMean` for each of ``names``."""

    def __init__(self, names: Iterable[str]):
        super().__init__({name: EpochMean() for name in names})

    def __getitem__(self, name: str) -> EpochMean:
        return cast(EpochMean, super().__getitem__(name))

    def compute(self) -> dict[str, Tensor]:
        return {name: self[name].compute() for name in self}

    def reset(self) -> None:
        for name in self:
            self[name].reset()
