"""From e3nn's tensor product to the problem that the kernel generator reads."""

from __future__ import annotations

import torch
from e3nn import o3

from cuda_kernels.problem import Path, Problem, channel_row, edge_row, weight_row

from ._layout import shape

_ZERO = 1e-12
"""Coefficients below this are rounding noise: the smallest true one for l up to 8 is 1.3e-3."""


def build(product: o3.TensorProduct, layout: str) -> Problem:
    """The problem (float32; see `Problem.with_dtype`) of a tensor product whose paths all have mode "uvu"."""
    edge_blocks = _starts([multiplicity for multiplicity, _ in product.irreps_in2])
    weight_shapes, weight_blocks, paths = [], 0, []
    for instruction in product.instructions:
        coefficients = _coefficients(product, instruction)
        for copy in range(product.irreps_in2[instruction.i_in2].mul):
            weight = weight_blocks + copy if instruction.has_weight else None
            edge = edge_blocks[instruction.i_in2] + copy
            paths.append(Path(instruction.i_in1, edge, weight, instruction.i_out, coefficients))
        if instruction.has_weight:
            weight_shapes.append(instruction.path_shape)
            weight_blocks += instruction.path_shape[1]
    return Problem(
        x=channel_row(shape(product.irreps_in1), layout),
        y=edge_row(shape(product.irreps_in2), layout),
        w=weight_row(weight_shapes),
        g=channel_row(shape(product.irreps_out), layout),
        paths=tuple(paths),
        shared_weights=product.shared_weights,
    )


def _starts(counts) -> list[int]:
    starts = [0]
    for count in counts:
        starts.append(starts[-1] + count)
    return starts


def _coefficients(product: o3.TensorProduct, instruction) -> tuple[tuple[int, int, int, float], ...]:
    """(i, j, k, C[i, j, k] * path weight) in float64, values that agree up to rounding made equal, so that they are
    found equal."""
    ls = (
        irreps[n].ir.l
        for irreps, n in (
            (product.irreps_in1, instruction.i_in1),
            (product.irreps_in2, instruction.i_in2),
            (product.irreps_out, instruction.i_out),
        )
    )
    tensor = o3.wigner_3j(*ls, dtype=torch.float64) * instruction.path_weight
    magnitudes: list[float] = []
    result = []
    for i, j, k in (tensor.abs() > _ZERO).nonzero().tolist():
        value = tensor[i, j, k].item()
        magnitude = next((m for m in magnitudes if abs(abs(value) - m) < 1e-14 * m), None)
        if magnitude is None:
            magnitudes.append(magnitude := abs(value))
        result.append((i, j, k, magnitude if value > 0 else -magnitude))
    return tuple(result)
