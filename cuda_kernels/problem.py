"""What is computed: a frozen, hashable description of one tensor-product convolution.

A row is what one node or one edge owns of a tensor. It is cut into blocks of `multiplicity` channels times `dim`
components; the strides say where an element lies, so that layouts (mul_ir, ir_mul) and multiplicities of the edge
features need no code of their own.
"""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass, replace
from functools import cache, cached_property

LAYOUTS = ("mul_ir", "ir_mul")
ITEM_BYTES = {"float32": 4, "float64": 8}
KINDS = "gxyw"
"""The four arguments of M(g, x, y, w): output cotangent, node features, edge features, weights."""


@dataclass(frozen=True)
class Block:
    """Element (component i, channel u) lies at offset + i * component_stride + u * channel_stride of its row."""

    offset: int
    multiplicity: int
    dim: int
    component_stride: int
    channel_stride: int


@dataclass(frozen=True)
class Row:
    """The blocks of a row, and its length in numbers."""

    blocks: tuple[Block, ...]
    length: int


@dataclass(frozen=True)
class Path:
    """out[k, u] += sum over (i, j, c) of c * x[i, u] * y[j] * weight[u], for blocks given by their index in the
    problem's rows.

    `weight` is None for a path without weights; `coefficients` holds (i, j, k, c): Clebsch-Gordan coefficient times
    normalisation.
    """

    x: int
    y: int
    weight: int | None
    out: int
    coefficients: tuple[tuple[int, int, int, float], ...]

    def block(self, kind: str) -> int | None:
        """The path's block in rows of this kind; None for the weights of a path without."""
        return {"g": self.out, "x": self.x, "y": self.y, "w": self.weight}[kind]


@dataclass(frozen=True)
class Problem:
    """One convolution: out_i = sum over edges j->i and paths of CG(x_j, y_e; w_e).

    Args:
        x, y, w, g: rows of the node features, edge features, edge weights and outputs.
        paths: at least one.
        dtype: "float32" or "float64".
        shared_weights: one row of weights serves all edges.
    """

    x: Row
    y: Row
    w: Row
    g: Row
    paths: tuple[Path, ...]
    dtype: str = "float32"
    shared_weights: bool = False

    def __post_init__(self):
        if self.dtype not in ITEM_BYTES:
            raise ValueError(f"dtype: expected one of {sorted(ITEM_BYTES)}, got {self.dtype!r}")
        if not self.paths:
            raise ValueError("paths: a problem needs at least one path")
        for path in self.paths:
            if self.x.blocks[path.x].multiplicity != self.g.blocks[path.out].multiplicity:
                raise ValueError(f"paths: the channels of x and out differ in {path}")

    def __hash__(self):
        return hash(self.key)

    @cached_property
    def key(self) -> str:
        """A name that two problems share only if they are equal, in this process and any other."""
        return hashlib.sha256(repr(astuple(self)).encode()).hexdigest()[:24]

    @property
    def item_bytes(self) -> int:
        return ITEM_BYTES[self.dtype]

    def row(self, kind: str) -> Row:
        return getattr(self, kind)

    def multiplicity(self, path: Path) -> int:
        return self.x.blocks[path.x].multiplicity

    @cache  # noqa: B019  (one object for each dtype, so that its key is computed once)
    def with_dtype(self, dtype: str) -> Problem:
        return self if dtype == self.dtype else replace(self, dtype=dtype)

    @cache  # noqa: B019
    def component_major(self) -> Problem:
        """The same problem, the channels of a component of x or g side by side: those in other layouts are ir_mul."""
        rows = {
            kind: channel_row([(block.multiplicity, block.dim) for block in self.row(kind).blocks], "ir_mul")
            for kind in "xg"
            if any(block.channel_stride != 1 for block in self.row(kind).blocks)
        }
        return replace(self, **rows) if rows else self

    def describe(self) -> str:
        """A table of the paths, for people."""
        rows = f"x {self.x.length}, y {self.y.length}, weights {self.w.length}, out {self.g.length} numbers a row"
        lines = [
            f"{len(self.paths)} paths, {self.dtype}: {rows}",
            f"{'path':>4} {'channels':>8} {'x':>3} {'y':>3} {'out':>3} {'l1 x l2 -> l3':>14} {'terms':>5}",
        ]
        for n, path in enumerate(self.paths):
            l1, l2, l3 = (
                (row.blocks[b].dim - 1) // 2 for row, b in ((self.x, path.x), (self.y, path.y), (self.g, path.out))
            )
            lines.append(
                f"{n:4d} {self.multiplicity(path):8d} {path.x:3d} {path.y:3d} {path.out:3d} "
                f"{f'{l1} x {l2} -> {l3}':>14} {len(path.coefficients):5d}"
            )
        return "\n".join(lines)


def channel_row(irreps: list[tuple[int, int]], layout: str) -> Row:
    """The row of features with channels: `irreps` lists (multiplicity, dim)."""
    blocks, offset = [], 0
    for multiplicity, dim in irreps:
        strides = (1, dim) if layout == "mul_ir" else (multiplicity, 1)
        blocks.append(Block(offset, multiplicity, dim, *strides))
        offset += multiplicity * dim
    return Row(tuple(blocks), offset)


def edge_row(irreps: list[tuple[int, int]], layout: str) -> Row:
    """The row of edge features: each copy of an irrep is a block, which all channels see."""
    blocks, offset = [], 0
    for multiplicity, dim in irreps:
        for copy in range(multiplicity):
            start, stride = (copy * dim, 1) if layout == "mul_ir" else (copy, multiplicity)
            blocks.append(Block(offset + start, 1, dim, stride, 0))
        offset += multiplicity * dim
    return Row(tuple(blocks), offset)


def weight_row(shapes: list[tuple[int, int]]) -> Row:
    """The row of weights of shape (channels, copies of the edge irrep) an instruction: a block a copy."""
    blocks, offset = [], 0
    for channels, copies in shapes:
        blocks += [Block(offset + copy, channels, 1, 0, copies) for copy in range(copies)]
        offset += channels * copies
    return Row(tuple(blocks), offset)
