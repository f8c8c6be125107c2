"""Linear maps of features on a GPU, as torch operations whose derivatives are again among them.

The map y = M(x, w) is linear in the features x and in the weights w, which lie one after the other in one vector. With
its transposes by features, X(g, w), and by weights, W(x, g),

    M(x, w)   has for a gradient g   X(g, w) by x and W(x, g) by w,
    X(g, w)   has for a gradient v   M(v, w) by g and W(v, g) by w,
    W(x, g)   has for a gradient v   X(g, v) by x and M(x, v) by g.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from e3nn import o3
from torch import Tensor

from cuda_kernels.mixing import FORWARD, TRANSPOSED, WEIGHTS, Mixing

from . import _ops


@cache
def mixing(irreps_in: str, irreps_out: str) -> Mixing:
    """The map of :class:`pyg_cgconv.equivariant.Linear`: an output sums over all inputs of its irrep, divided by the
    root of their channels."""
    inputs, outputs = o3.Irreps(irreps_in), o3.Irreps(irreps_out)
    sources = [[k for k, (_, ir_in) in enumerate(inputs) if ir_in == ir] for _, ir in outputs]
    fan_in = [sum(inputs[k].mul for k in slots) for slots in sources]
    return Mixing(
        inputs=tuple((ir.dim, mul) for mul, ir in inputs),
        outputs=tuple((ir.dim, mul) for mul, ir in outputs),
        sources=tuple(map(tuple, sources)),
        factors=tuple(1 / math.sqrt(max(1, u)) for u in fan_in),
    )


def mix(irreps_in: str, irreps_out: str, x: Tensor, weights: Tensor) -> Tensor:
    """M(x, w) for features x (n, irreps_in.dim) and weights (weight_numel,), on a GPU: (n, irreps_out.dim),
    differentiable any number of times."""
    return torch.ops.pyg_cgconv.mix(irreps_in, irreps_out, x, weights)


def _run(part: str):
    def run(irreps_in: str, irreps_out: str, left: Tensor, right: Tensor) -> Tensor:
        from . import _mixing_cuda  # needs the CUDA driver's bindings

        return _mixing_cuda.run(mixing(irreps_in, irreps_out), part, left, right)

    return run


def _gradients(by_left, by_right):
    """Of an operation whose gradients by its two operands are ``by_left(gradient, right)`` and ``by_right(gradient,
    left)``."""

    def gradients(ctx, gradient: Tensor):
        left, right = ctx.saved_tensors
        return (
            None,
            None,
            by_left(*ctx.irreps, gradient, right) if ctx.needs_input_grad[2] else None,
            by_right(*ctx.irreps, gradient, left) if ctx.needs_input_grad[3] else None,
        )

    return gradients


def _setup_context(ctx, inputs, output) -> None:
    *ctx.irreps, left, right = inputs
    ctx.save_for_backward(left, right)


def _define(name: str, operands: str, part: str, shape, by_left, by_right) -> None:
    """The operation that computes this part of a mixing; ``shape(mixing, rows)`` is its result's."""

    def fake(irreps_in: str, irreps_out: str, left: Tensor, right: Tensor) -> Tensor:
        return left.new_empty(shape(mixing(irreps_in, irreps_out), left.shape[0]))

    _ops.define(
        f"{name}(str irreps_in, str irreps_out, {operands}) -> Tensor",
        {"CUDA": _run(part)},
        fake,
        _gradients(by_left, by_right),
        _setup_context,
    )


def _of_features(a: str, b: str, gradient: Tensor, weights: Tensor) -> Tensor:
    return torch.ops.pyg_cgconv.mix(a, b, gradient, weights)


def _by_features(a: str, b: str, gradient: Tensor, weights: Tensor) -> Tensor:
    return torch.ops.pyg_cgconv.mix_transposed(a, b, gradient, weights)


def _by_weights(a: str, b: str, gradient: Tensor, x: Tensor) -> Tensor:
    return torch.ops.pyg_cgconv.mix_weights(a, b, x, gradient)


_define(
    "mix",
    "Tensor x, Tensor weights",
    FORWARD,
    lambda m, rows: (rows, m.output_length),
    by_left=_by_features,
    by_right=_by_weights,
)
_define(
    "mix_transposed",
    "Tensor gradient, Tensor weights",
    TRANSPOSED,
    lambda m, rows: (rows, m.input_length),
    by_left=_of_features,
    by_right=lambda a, b, v, gradient: torch.ops.pyg_cgconv.mix_weights(a, b, v, gradient),
)
_define(
    "mix_weights",
    "Tensor x, Tensor gradient",
    WEIGHTS,
    lambda m, rows: (m.weight_numel,),
    by_left=lambda a, b, v, gradient: torch.ops.pyg_cgconv.mix_transposed(a, b, gradient, v),
    by_right=lambda a, b, v, x: torch.ops.pyg_cgconv.mix(a, b, x, v),
)
