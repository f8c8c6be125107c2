"""The products of nodes' features with themselves, as torch operations whose derivatives are again among them.

They are a convolution over the graph in which each node is its only neighbour: from features x, edge features f and,
number by number as weights, features v, the kernels make f B(x, v). B is bilinear and symmetric, and with the gradient
B'(g, x) of <g, B(x, v)> by v

    square(x)   = B(x, x)       has for a gradient g   slope(g, x) by x,
    mixed(x, v) = 2 B(x, v)     has for a gradient g   slope(g, v) by x and slope(g, x) by v,
    slope(g, x) = 2 B'(g, x)    has for a gradient v   mixed(x, v) by g and slope(g, v) by x.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cuda_kernels.polynomial import FORWARD, Contraction

from . import _ops

_BY_FEATURES = FORWARD.derivative(("g",), ("x",))[0]


def square(problem: str, x: Tensor) -> Tensor:
    """B(x, x) for features x (n, x.length) of the problem with this registered name: (n, g.length), differentiable any
    number of times.

    Raises:
        ValueError: x has another shape.
    """
    length = _ops.registered(problem).x.length
    if x.dim() != 2 or x.shape[1] != length:
        raise ValueError(f"x: expected shape (n, {length}), got {tuple(x.shape)}")
    return torch.ops.pyg_cgconv.square(problem, x)


def _square(problem: str, x: Tensor) -> Tensor:
    return _contracted(problem, FORWARD, x, 1.0, x)


def _mixed(problem: str, x: Tensor, v: Tensor) -> Tensor:
    return _contracted(problem, FORWARD, x, 2.0, v)


def _slope(problem: str, g: Tensor, x: Tensor) -> Tensor:
    return _contracted(problem, _BY_FEATURES, g, 2.0, x)


def _contracted(problem: str, contraction: Contraction, rows: Tensor, factor: float, weights: Tensor) -> Tensor:
    nodes = len(rows)
    starts = torch.arange(nodes + 1, dtype=torch.int32, device=rows.device)
    node = starts[:-1]
    loops = starts, node, node, node, node[:0]  # an edge from each node to itself, listed as in SortedEdges
    edge_features = rows.new_full((nodes, 1), factor)
    (out,) = _ops.run(
        _ops.registered(problem), contraction, [rows, edge_features, weights], (loops, loops), nodes, True
    )
    return out


def _square_gradient(ctx, gradient: Tensor):
    (x,) = ctx.saved_tensors
    return None, torch.ops.pyg_cgconv.slope(ctx.problem, gradient, x)


def _mixed_gradients(ctx, gradient: Tensor):
    x, v = ctx.saved_tensors
    by_x, by_v = (
        torch.ops.pyg_cgconv.slope(ctx.problem, gradient, other) if needed else None
        for other, needed in zip((v, x), ctx.needs_input_grad[1:], strict=True)
    )
    return None, by_x, by_v


def _slope_gradients(ctx, gradient: Tensor):
    g, x = ctx.saved_tensors
    _, needs_g, needs_x = ctx.needs_input_grad
    by_g = torch.ops.pyg_cgconv.mixed(ctx.problem, x, gradient) if needs_g else None
    by_x = torch.ops.pyg_cgconv.slope(ctx.problem, g, gradient) if needs_x else None
    return None, by_g, by_x


def _setup_context(ctx, inputs, output) -> None:
    ctx.problem, *tensors = inputs
    ctx.save_for_backward(*tensors)


def _define(name: str, operands: str, run, gradients, row: str) -> None:
    """The operation with ``operands`` that ``run`` computes; it returns rows of the kind ``row``."""

    def fake(problem: str, rows: Tensor, *_) -> Tensor:
        return rows.new_empty((rows.shape[0], _ops.registered(problem).row(row).length))

    runs = {"CPU": run, "CUDA": run}
    _ops.define(f"{name}(str problem, {operands}) -> Tensor", runs, fake, gradients, _setup_context)


_define("square", "Tensor x", _square, _square_gradient, row="g")
_define("mixed", "Tensor x, Tensor v", _mixed, _mixed_gradients, row="g")
_define("slope", "Tensor g, Tensor x", _slope, _slope_gradients, row="x")
