"""Activations and gates of rows. In a CUDA graph, where small molecules are bound by the number of operations, their
derivatives of the first two orders are a kernel each: PyTorch has a dozen for the derivative of silu's derivative."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from cuda_kernels.cuda.binary import MINIMUM_CAPABILITY
from cuda_kernels.gate import Gains, Kind, Order, Unit, table

from .._torch import current_device, current_stream, in_forward_mode, is_plain, with_memory
from ..cuda_graphs import is_for_graph
from ._run import DTYPES

MOST_THREADS = 2**31
"""Kernels count them in 32 bits."""


class Gates(NamedTuple):
    """A gated nonlinearity.

    Attributes:
        units: its scalars and what they multiply. Each number of both rows belongs to one of them.
        length_in, length_out: numbers in a row.
        gains: factors of the activations.
        plain: the same in PyTorch.
    """

    units: tuple[Unit, ...]
    length_in: int
    length_out: int
    gains: Gains
    plain: Callable[[Tensor], Tensor]


SILU = Gates((Unit(Kind.SILU, 0, 0),), 1, 1, Gains(1.0, 1.0), functional.silu)
"""Of rows of one number."""


def gated(gates: Gates, x: Tensor) -> Tensor:
    """The nonlinearity of rows (n, length_in): (n, length_out)."""
    return Gated.apply(gates, x) if _have_kernels(x, len(gates.units) * len(x)) else gates.plain(x)


def silu(x: Tensor) -> Tensor:
    r""":math:`x \, s(x)` with the logistic function s: :func:`torch.nn.functional.silu`."""
    return SiLU.apply(x) if _have_kernels(x, x.numel()) else functional.silu(x)


def _have_kernels(x: Tensor, threads: int) -> bool:
    """Whether x is on a GPU that has kernels for it, and they are for a CUDA graph."""
    if not is_for_graph(x) or not is_plain(x) or in_forward_mode():
        return False
    return x.dtype in DTYPES and 0 < threads < MOST_THREADS and _compile_here(x.get_device())


@cache
def _compile_here(device: int) -> bool:
    """Whether kernels can be compiled, and run on this GPU."""
    try:
        found = all(map(find_spec, ("cuda.bindings", "numba_cuda")))
    except ModuleNotFoundError:
        return False
    return found and torch.cuda.get_device_capability(device) >= MINIMUM_CAPABILITY


class Gated(Function):
    @staticmethod
    def forward(ctx, gates, x):
        ctx.gates = gates
        ctx.save_for_backward(x)
        (y,) = launched(Order.FORWARD, gates, [x], [gates.length_out])
        return y

    @staticmethod
    def backward(ctx, gradient):
        return None, GatedSlope.apply(ctx.gates, gradient, *ctx.saved_tensors)


class GatedSlope(Function):
    """The gradient by the input."""

    @staticmethod
    def forward(ctx, gates, gradient, x):
        ctx.gates = gates
        ctx.save_for_backward(gradient, x)
        (by_x,) = launched(Order.BACKWARD, gates, [x, gradient], [gates.length_in])
        return by_x

    @staticmethod
    def backward(ctx, tangent):
        gradient, x = ctx.saved_tensors
        return None, *_curvature(ctx.gates, gradient, x, tangent)


class SiLU(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return functional.silu(x)

    @staticmethod
    def backward(ctx, gradient):
        return SiLUSlope.apply(gradient, *ctx.saved_tensors)


class SiLUSlope(Function):
    @staticmethod
    def forward(ctx, gradient, x):
        ctx.save_for_backward(gradient, x)
        return torch.ops.aten.silu_backward(gradient, x)

    @staticmethod
    def backward(ctx, tangent):
        gradient, x = ctx.saved_tensors
        return _curvature(SILU, gradient, x, tangent)


def _curvature(gates: Gates, gradient: Tensor, x: Tensor, tangent: Tensor) -> tuple[Any, ...]:
    """The gradients of the gradient by the input, by the output's gradient and by the input.

    Args:
        gradient: Of the output.
        tangent: Of the gradient by the input.
    """
    if not torch.is_grad_enabled():
        rows = [
            each.reshape(-1, length)
            for each, length in zip(
                (x, gradient, tangent), (gates.length_in, gates.length_out, gates.length_in), strict=True
            )
        ]
        found = launched(Order.DOUBLE_BACKWARD, gates, rows, [gates.length_out, gates.length_in])
        return tuple(new.view(old.shape) for new, old in zip(found, (gradient, x), strict=True))
    # A third derivative will be asked for, of which there is no kernel.
    # Views, of which none is made of another: a gradient is often made of x, and autograd has that way by itself.
    given = [each.view_as(each) if each.requires_grad else each.detach().requires_grad_() for each in (gradient, x)]
    (slope,) = torch.autograd.grad(gates.plain(given[1]), given[1], given[0], create_graph=True)
    return torch.autograd.grad(slope, given, tangent, create_graph=True, allow_unused=True)


def launched(order: Order, gates: Gates, inputs: list[Tensor], lengths: list[int]) -> list[Tensor]:
    """New rows of these lengths, from rows on a GPU."""
    device = inputs[0].get_device()
    if device != current_device():
        with torch.cuda.device(device):
            return launched(order, gates, inputs, lengths)
    from cuda_kernels.cuda.driver import ensure_context  # needs the CUDA driver's bindings

    ensure_context(device)
    rows = [with_memory(each).contiguous() for each in inputs]
    outputs = [rows[0].new_empty(len(rows[0]), length) for length in lengths]
    kernel, units = _kernel(order, DTYPES[rows[0].dtype], gates.gains, device), _table(gates.units, device)
    addresses = [each.data_ptr() for each in (*rows, *outputs)]
    sizes = len(rows[0]), len(gates.units), gates.length_in, gates.length_out
    kernel(addresses, units.data_ptr(), *sizes, current_stream(device))
    return outputs


@cache
def _kernel(order: Order, dtype: str, gains: Gains, device: int):
    from cuda_kernels.cuda.launch import GateKernel

    return GateKernel(order, dtype, gains, device)


@cache
def _table(units: tuple[Unit, ...], device: int) -> Tensor:
    return torch.from_numpy(table(units)).to(f"cuda:{device}")
