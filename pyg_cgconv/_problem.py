"""From e3nn's tensor product to the problem that the kernel generator reads."""

from __future__ import annotations

from itertools import groupby

import torch
from e3nn import o3
from torch import Tensor

from cuda_kernels.problem import Block, Path, Problem, Row, channel_row, edge_row, weight_row

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
    convolution with features x, as weights v the same or others, number by number, and the edge feature 1.

    A number of v is the weight of many paths, so their gradients by v would overwrite each other: take those by x.

    Args:
        product: of two inputs of the same irreps and one multiplicity, each path of mode "uuu" without weights to a
            slot of its own, slots of equal irreps side by side: in the output these are one.
    """
    irreps, channels = product.irreps_in1, product.irreps_in1[0].mul
    components = _starts([ir.dim for _, ir in irreps])
    paths = []
    for instruction in product.instructions:
        a, b, out = instruction.i_in1, instruction.i_in2, instruction.i_out
        coefficients = _nonzero(_product_tensor(product, instruction))
        orders = {(a, b): coefficients}
        if a != b:
            orders = {
                (a, b): tuple((i, j, k, c / 2) for i, j, k, c in coefficients),
                (b, a): tuple((j, i, k, c / 2) for i, j, k, c in coefficients),
            }
        for (x, v), terms in orders.items():
            for n in sorted({j for _, j, _, _ in terms}):
                of_n = tuple((i, 0, k, c) for i, j, k, c in terms if j == n)
                paths.append(Path(x=x, y=0, weight=components[v] + n, out=out, coefficients=of_n))
    return Problem(
        x=channel_row(shape(irreps), "ir_mul"),
        y=edge_row([(1, 1)], "ir_mul"),
        w=weight_row([(channels, 1)] * components[-1]),
        g=_joined_row(product.irreps_out, channels),
        paths=tuple(paths),
    )


def _joined_row(slots: o3.Irreps, channels: int) -> Row:
    """The row, in ir_mul, of slots of equal multiplicity, where those of equal irreps are one block of memory."""
    blocks, offset = [], 0
    for ir, group in groupby(ir for _, ir in slots):
        count = len(list(group))
        stride = count * channels
        blocks += [Block(offset + n * channels, channels, ir.dim, stride, 1) for n in range(count)]
        offset += stride * ir.dim
    return Row(tuple(blocks), offset)


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
