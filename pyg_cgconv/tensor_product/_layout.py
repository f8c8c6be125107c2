"""The two orders of a row's numbers: mul_ir (a channel's components together, e3nn's) and ir_mul (a component's
channels together)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from e3nn import o3
from torch import Tensor

from cuda_kernels.problem import LAYOUTS

from .._checks import check_choice
from .._functions import join

IrrepsLike: TypeAlias = o3.Irreps | str | Sequence[tuple]
"""What `o3.Irreps` takes: irreps, their string, or a list of (multiplicity, irrep)."""


def irreps_of(name: str, given: IrrepsLike) -> o3.Irreps:
    """The irreps that were given as the argument `name`.

    Raises:
        ValueError: they are none.
    """
    try:
        return o3.Irreps(given)
    except (ValueError, TypeError, AssertionError) as error:
        raise ValueError(f"{name}: expected irreps such as '16x0e+16x1o', got {given!r}") from error


def shape(irreps: o3.Irreps) -> list[tuple[int, int]]:
    """(multiplicity, dim) of each block of a row."""
    return [(multiplicity, ir.dim) for multiplicity, ir in irreps]


def to_ir_mul(features: Tensor, blocks: Iterable[tuple[int, int]]) -> Tensor:
    """Rows (..., dim) from mul_ir to ir_mul; `blocks` are (multiplicity, dim)."""
    return _transpose(features, list(blocks))


def to_mul_ir(features: Tensor, blocks: Iterable[tuple[int, int]]) -> Tensor:
    """Rows (..., dim) from ir_mul to mul_ir; `blocks` are (multiplicity, dim)."""
    return _transpose(features, [(dim, multiplicity) for multiplicity, dim in blocks])


def channels_last(block: Tensor) -> Tensor:
    """The block (n, 2l+1, mul) with a component's channels together in memory: itself, or else a copy."""
    return block if block.stride(-1) == 1 else block.contiguous()


def times(block: Tensor, matrix: Tensor) -> Tensor:
    """Products (n, d, w) of blocks (n, d, u) with a matrix (u, w), all in one. PyTorch makes one for each row if rows
    are apart in memory and nobody asks for gradients by the matrix."""
    rows, dim, channels = block.shape
    if dim == 1:
        return (block[:, 0] @ matrix)[:, None]
    return (block.reshape(rows * dim, channels) @ matrix).view(rows, dim, matrix.shape[1])


class Rows:
    """Features (n, irreps.dim) in one of the layouts: the argument ``name`` of a layer, or its result.

    It has plain numbers only, because torch.compile cannot trace e3nn's irreps.

    Raises:
        ValueError: there is no such layout.
    """

    def __init__(self, irreps: o3.Irreps, layout: str, name: str = "x"):
        check_choice("layout", layout, LAYOUTS)
        self.irreps, self.layout, self.name = str(irreps), layout, name
        self.blocks, self.dim = shape(irreps), irreps.dim

    def check(self, features: Tensor) -> None:
        """Raises a ValueError unless features have this shape."""
        if features.dim() != 2 or features.shape[1] != self.dim:
            expected = f"expected shape (n, {self.dim}), features {self.irreps}"
            raise ValueError(f"{self.name}: {expected}, got {tuple(features.shape)}")

    def split(self, features: Tensor) -> list[Tensor]:
        """The blocks (n, 2l+1, mul), in either layout; views, no copy."""
        self.check(features)
        slots = zip(features.split([mul * dim for mul, dim in self.blocks], dim=-1), self.blocks, strict=True)
        if self.layout == "ir_mul":
            return [slot.unflatten(-1, (dim, mul)) for slot, (mul, dim) in slots]
        return [slot.unflatten(-1, (mul, dim)).mT for slot, (mul, dim) in slots]

    def join(self, blocks: list[Tensor]) -> Tensor:
        """The features that have these blocks (n, 2l+1, mul)."""
        return join([(block if self.layout == "ir_mul" else block.mT).flatten(1) for block in blocks])

    def to_ir_mul(self, features: Tensor) -> Tensor:
        """The features in ir_mul, which the kernels know; what has this layout is not copied."""
        if self.layout == "ir_mul":
            return features
        self.check(features)
        return to_ir_mul(features, self.blocks)

    def from_ir_mul(self, features: Tensor) -> Tensor:
        """The way back from :meth:`to_ir_mul`."""
        return features if self.layout == "ir_mul" else to_mul_ir(features, self.blocks)


def _transpose(features: Tensor, matrices: list[tuple[int, int]]) -> Tensor:
    """Each block of a row transposed, as a matrix of this shape."""
    if all(1 in matrix for matrix in matrices):
        return features
    blocks = features.split([rows * columns for rows, columns in matrices], dim=-1)
    return join(
        [
            block if 1 in matrix else block.unflatten(-1, matrix).mT.flatten(-2)
            for block, matrix in zip(blocks, matrices, strict=True)
        ]
    )
