"""Functions whose derivatives, of the first two orders, are as few operations as the functions.

A potential trained on forces differentiates twice, and in a CUDA graph small molecules are bound by the number of
operations: PyTorch has a copy, a filling and an addition for each block that the derivative of a concatenation's
derivative puts together again. Where there is no graph, the way of these functions through Python takes longer than
what they save (a training step of 16 channels on a CPU 19 ms, with PyTorch's own 14): there they are those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import Function

from .cuda_graphs import is_for_graph

F = TypeVar("F", bound=Callable)


def join(blocks: list[Tensor]) -> Tensor:
    """``torch.cat(blocks, dim=-1)``."""
    if len(blocks) == 1:
        return blocks[0]
    return Join.apply(*blocks) if is_for_graph(blocks[0]) else torch.cat(blocks, dim=-1)


def scale_each(tensors: Iterable[Tensor], factors: Sequence[float]) -> Sequence[Tensor]:
    """Each tensor times its factor."""
    tensors = tuple(tensors)
    if tensors and is_for_graph(tensors[0]):
        return ScaleEach.apply(tuple(factors), *tensors)
    return [tensor * factor for tensor, factor in zip(tensors, factors, strict=True)]


def reordered(x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    """``x[..., order]`` of a permutation, and ``inverse`` its inverse: derivatives are such calls again."""
    return Reordered.apply(x, order, inverse)


def without_autocast(method: F) -> F:
    """The method as it is without :class:`torch.autocast`: what this has given half the precision becomes float32."""

    @wraps(method)
    def exact(*arguments: Any, **named: Any) -> Any:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                with torch.autocast(device, enabled=False):
                    return exact(*map(_single, arguments), **{name: _single(value) for name, value in named.items()})
        return method(*arguments, **named)

    return exact  # type: ignore[return-value]


def _single(argument: Any) -> Any:
    if isinstance(argument, Tensor) and argument.dtype in (torch.float16, torch.bfloat16):
        return argument.float()
    return tuple(map(_single, argument)) if type(argument) in (tuple, list) else argument


class Join(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(*blocks):
        return torch.cat(blocks, dim=-1)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.sizes = [block.shape[-1] for block in inputs]

    @staticmethod
    def backward(ctx, gradient):
        return gradient.split(ctx.sizes, dim=-1)  # whose derivative is torch.cat again


class ScaleEach(Function):
    """One operation for all tensors."""

    generate_vmap_rule = True

    @staticmethod
    def forward(factors, *tensors):
        return tuple(torch._foreach_mul(tensors, factors))

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.factors = inputs[0]

    @staticmethod
    def backward(ctx, *gradients):
        return None, *ScaleEach.apply(ctx.factors, *gradients)


class Reordered(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, order, inverse):
        return x.index_select(-1, order)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx, gradient):
        order, inverse = ctx.saved_tensors
        return Reordered.apply(gradient, inverse, order), None, None
