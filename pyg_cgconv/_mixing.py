"""Linear maps of features on a GPU, as torch operations whose derivatives are again among them.

Of features x, weights w, which lie one after the other in one vector, and a cotangent g of the result, <g, M(x, w)> is
linear in each. So there are three operations, its derivatives, each named by the operand that it lacks:

    g: M(x, w), the map;  x: its transpose by features, of g and w;  w: its transpose by weights, of x and g.

The gradient of one of them by an operand is the operation of that name, of the cotangent and the other operand.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from e3nn import o3
from torch import Tensor

from cuda_kernels.mixing import FORWARD, TRANSPOSED, WEIGHTS, Mixing

from . import _ops

PARTS = {"g": FORWARD, "x": TRANSPOSED, "w": WEIGHTS}
_NAMES = {"g": "mix", "x": "mix_transposed", "w": "mix_weights"}
_OPERANDS = {"g": "xw", "x": "gw", "w": "xg"}


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
    differentiable any number of times.

    Raises:
        ValueError: x lies on another device than the weights.
        TypeError: x is not of the weights' dtype, or that is neither float32 nor float64.
    """
    if x.device != weights.device:
        raise ValueError(f"x: on {x.device}, but the weights are on {weights.device}; move one of them with .to()")
    if x.dtype != weights.dtype:
        raise TypeError(f"x: dtype {x.dtype} differs from that of the weights, {weights.dtype}; convert one of them")
    if x.dtype not in _ops.DTYPES:
        raise TypeError(f"x: dtype {x.dtype} has no kernel; convert x and the layer to float32 or float64")
    return torch.ops.pyg_cgconv.mix(irreps_in, irreps_out, x, weights)


def _apply(result: str, irreps: tuple[str, str], values: dict[str, Tensor]) -> Tensor:
    """The operation named by ``result``, of those of the ``values`` that are its operands."""
    operation = getattr(torch.ops.pyg_cgconv, _NAMES[result])
    return operation(*irreps, *(values[kind] for kind in _OPERANDS[result]))


def _define(result: str) -> None:
    """The operation of this name."""
    part, operands = PARTS[result], _OPERANDS[result]

    def run(irreps_in: str, irreps_out: str, left: Tensor, right: Tensor) -> Tensor:
        from . import _mixing_cuda  # needs the CUDA driver's bindings

        return _mixing_cuda.run(irreps_in, irreps_out, part, left, right)

    def fake(irreps_in: str, irreps_out: str, left: Tensor, right: Tensor) -> Tensor:
        return left.new_empty(mixing(irreps_in, irreps_out).shape(part, left.shape[0]))

    def setup_context(ctx, inputs, output) -> None:
        *ctx.irreps, left, right = inputs
        ctx.save_for_backward(left, right)

    def gradients(ctx, gradient: Tensor):
        values = dict(zip(operands, ctx.saved_tensors, strict=True)) | {result: gradient}
        needed = ctx.needs_input_grad[2:]
        return (
            None,
            None,
            *(_apply(kind, ctx.irreps, values) if need else None for kind, need in zip(operands, needed, strict=True)),
        )

    left, right = operands
    schema = f"{_NAMES[result]}(str irreps_in, str irreps_out, Tensor {left}, Tensor {right}) -> Tensor"
    _ops.define(schema, {"CUDA": run}, fake, gradients, setup_context)


for _result in PARTS:
    _define(_result)
