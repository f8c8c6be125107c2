"""Atoms of other processes among the neighbours of one's own: what they are comes from where they are computed."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Exchange(Protocol):
    """What a simulation program does for rows of own atoms followed by those of ghosts, (m, length) in and out.

    All processes call it the same number of times, also those without atoms.
    """

    def forward_exchange(self, features: Tensor, out: Tensor, length: int, /) -> None:
        """Ghosts get the rows of the atoms that they stand for."""

    def reverse_exchange(self, gradients: Tensor, out: Tensor, length: int, /) -> None:
        """Own atoms get the sum of their rows and those of the ghosts that stand for them."""


class Ghosts:
    """The ghosts behind a process's own atoms.

    Args:
        owned: Number of own atoms n.
        total: Number of own atoms and ghosts m.
        exchange: The program between the processes.
        vectors: What the energy is differentiated by. Each process then takes part in each reverse exchange, also one
            without edges.
    """

    def __init__(self, owned: int, total: int, exchange: Exchange, vectors: Tensor):
        self.owned, self.total, self.exchange, self.vectors = owned, total, exchange, vectors

    def pair(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features of all atoms (m, d) and of own atoms (n, d); asks the other processes for those of the ghosts."""
        return _Exchanged.apply(x, self.vectors, self), x


class _Exchanged(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, vectors: Tensor, ghosts: Ghosts) -> Tensor:
        ctx.ghosts = ghosts
        every = own.new_zeros(ghosts.total, own.shape[1])
        every[: ghosts.owned] = own
        return _exchanged(ghosts.exchange.forward_exchange, every)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor, None, None]:
        summed = _exchanged(ctx.ghosts.exchange.reverse_exchange, gradients.contiguous())
        return summed[: ctx.ghosts.owned], None, None


def _exchanged(exchange: Any, rows: Tensor) -> Tensor:
    out = torch.empty_like(rows)
    wait_for_device(rows)
    exchange(rows, out, rows.shape[1])
    wait_for_device(out)
    return out


def wait_for_device(tensor: Tensor) -> None:
    """Before and after the program, which computes on streams of its own, touches tensors on a GPU."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
