"""Functions whose derivatives, of the first two orders, are as few operations as the functions.

A potential trained on forces differentiates twice, and small molecules are bound by the number of operations: PyTorch
has a dozen for the derivative of silu's derivative, and a copy, a filling and an addition for each block that the
derivative of a concatenation's derivative puts together again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional


def join(blocks: list[Tensor]) -> Tensor:
    """``torch.cat(blocks, dim=-1)``."""
    return blocks[0] if len(blocks) == 1 else _Join.apply(*blocks)


def silu(x: Tensor) -> Tensor:
    r""":math:`x \, s(x)` with the logistic function s: :func:`torch.nn.functional.silu`."""
    return _SiLU.apply(x)


def scale_each(tensors: Iterable[Tensor], factors: Sequence[float]) -> tuple[Tensor, ...]:
    """Each tensor times its factor, by one operation for all."""
    return _ScaleEach.apply(tuple(factors), *tensors)


class _Join(Function):
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


class _ScaleEach(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(factors, *tensors):
        return tuple(torch._foreach_mul(tensors, factors))

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.factors = inputs[0]

    @staticmethod
    def backward(ctx, *gradients):
        return None, *_ScaleEach.apply(ctx.factors, *gradients)


class _SiLU(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return functional.silu(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        return _SiLUSlope.apply(gradient, *ctx.saved_tensors)


class _SiLUSlope(Function):
    r"""gradient times :math:`s (1 + x (1 - s))`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(gradient, x):
        return torch.ops.aten.silu_backward(gradient, x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, tangent):
        gradient, x = ctx.saved_tensors
        by_gradient = _SiLUSlope.apply(tangent, x) if ctx.needs_input_grad[0] else None
        by_x = tangent * gradient * _curvature(x) if ctx.needs_input_grad[1] else None
        return by_gradient, by_x


def _curvature(x: Tensor) -> Tensor:
    r"""silu's second derivative, :math:`s (1 - s) (2 + x - 2 x s)`."""
    return torch.ops.aten.sigmoid_backward(2 + torch.sub(x, silu(x), alpha=2), torch.sigmoid(x))
