"""From e3nn's tensor product to the problem that the kernel generator reads."""

from __future__ import annotations

import torch
from e3nn import o3
from torch import Tensor

from cuda_kernels.problem import Path, Problem, channel_row, edge_row, weight_row

from ._layout import shape

_ZERO = 1e-12
"""Coefficients below this are rounding noise: the smallest true one for l up to 8 is 1.3e-3."""


def build(product: o3.TensorProduct, layout: str) -> Problem:
    """The problem (float32; see `Problem.with_dtype`) of a tensor product whose paths all have mode "uvu"."""
    edge_blocks = _starts([multiplicity for multiplicity, _ in product.irreps_in2])
    weight_shapes, weight_blocks, paths = [], 0, []
    for instruction in product.instructions:
        coefficients = _nonzero(_product_tensor(product, instruction))
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


def build_square(product: o3.TensorProduct) -> Problem:
    """The problem (float32, ir_mul) of a symmetric bilinear map that is ``product`` where both inputs are equal: a
    convolution with features x, weights v and the edge feature 1. Slots of equal irreps become one.

    Args:
        product: of two inputs of the same irreps and one multiplicity; all paths have mode "uuu" and no weights.
    """
    irreps, channels = product.irreps_in1, product.irreps_in1[0].mul
    starts = _starts([ir.dim for _, ir in irreps])
    components, products = starts[-1], {ir: [] for _, ir in product.irreps_out}
    for instruction in product.instructions:
        a, b = (slice(starts[n], starts[n + 1]) for n in (instruction.i_in1, instruction.i_in2))
        block = _product_tensor(product, instruction)
        tensor = block.new_zeros(components, components, block.shape[2])
        tensor[a, b] = block
        products[product.irreps_out[instruction.i_out].ir].append((tensor + tensor.transpose(0, 1)) / 2)
    outputs = [torch.stack(tensors, dim=-1).flatten(2) for tensors in products.values()]  # (i, j, (component, product))
    paths = [
        Path(0, 0, j, out, coefficients)
        for out, tensor in enumerate(outputs)
        for j in range(components)
        if (coefficients := _nonzero(tensor[:, j : j + 1]))
    ]
    return Problem(
        x=channel_row([(channels, components)], "ir_mul"),
        y=edge_row([(1, 1)], "ir_mul"),
        w=weight_row([(channels, 1)] * components),
        g=channel_row([(channels, tensor.shape[2]) for tensor in outputs], "ir_mul"),
        paths=tuple(paths),
    )


def _starts(counts) -> list[int]:
    starts = [0]
    for count in counts:
        starts.append(starts[-1] + count)
    return starts


def _product_tensor(product: o3.TensorProduct, instruction) -> Tensor:
    """(2 l1 + 1, 2 l2 + 1, 2 l3 + 1) Clebsch-Gordan coefficients times the path's normalisation, in float64."""
    ls = (
        irreps[n].ir.l
        for irreps, n in (
            (product.irreps_in1, instruction.i_in1),
            (product.irreps_in2, instruction.i_in2),
            (product.irreps_out, instruction.i_out),
        )
    )
    return o3.wigner_3j(*ls, dtype=torch.float64) * instruction.path_weight


def _nonzero(tensor: Tensor) -> tuple[tuple[int, int, int, float], ...]:
    """(i, j, k, coefficient), values that agree up to rounding made equal, so that they are found equal."""
    magnitudes: list[float] = []
    result = []
    for i, j, k in (tensor.abs() > _ZERO).nonzero().tolist():
        value = tensor[i, j, k].item()
        magnitude = next((m for m in magnitudes if abs(abs(value) - m) < 1e-14 * m), None)
        if magnitude is None:
            magnitudes.append(magnitude := abs(value))
        result.append((i, j, k, magnitude if value > 0 else -magnitude))
    return tuple(result)
