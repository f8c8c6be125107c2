"""The two orders of a row's numbers: mul_ir (a channel's components together, e3nn's) and ir_mul (a component's
channels together)."""

from __future__ import annotations

from collections.abc import Iterable

from e3nn import o3
from torch import Tensor


def shape(irreps: o3.Irreps) -> list[tuple[int, int]]:
    """(multiplicity, dim) of each block of a row."""
    return [(multiplicity, ir.dim) for multiplicity, ir in irreps]


def to_ir_mul(features: Tensor, blocks: Iterable[tuple[int, int]]) -> Tensor:
    """Rows (..., dim) from mul_ir to ir_mul; `blocks` are (multiplicity, dim)."""
    return _transpose(features, list(blocks))


def to_mul_ir(features: Tensor, blocks: Iterable[tuple[int, int]]) -> Tensor:
    """Rows (..., dim) from ir_mul to mul_ir; `blocks` are (multiplicity, dim)."""
    return _transpose(features, [(dim, multiplicity) for multiplicity, dim in blocks])


def _transpose(features: Tensor, matrices: list[tuple[int, int]]) -> Tensor:
    """Each block of a row transposed, as a matrix of this shape."""
    if all(1 in matrix for matrix in matrices):
        return features
    result, start = features.new_empty(features.shape), 0
    for matrix in matrices:
        stop = start + matrix[0] * matrix[1]
        source, target = features[..., start:stop], result[..., start:stop]
        target.unflatten(-1, matrix[::-1]).copy_(source.unflatten(-1, matrix).mT)
        start = stop
    return result
