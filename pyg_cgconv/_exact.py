"""Constants of a module that keep their precision."""

from __future__ import annotations

from typing import ClassVar

from torch import nn


class ExactBuffers(nn.Module):
    """A module whose ``exact`` buffers move with it, but stay float64, whatever it is cast to."""

    exact: ClassVar[tuple[str, ...]] = ()

    def _apply(self, fn, recurse=True):
        buffers = {name: getattr(self, name) for name in self.exact}
        super()._apply(fn, recurse)
        for name, buffer in buffers.items():
            setattr(self, name, buffer.to(getattr(self, name).device))
        return self
