"""What is computed: a frozen, hashable description of one multilinear form M.

M is a sum over sites (the edges of a graph, or rows where there is no graph), paths, channels u and components of

    C[i, j, k] * left[i, u] * right[j] * out[k, u] * weight[u]

`out` is the output's cotangent: the derivative of M by it is the output. The factors are operands. An operand says how
its row is laid out, which row a site reads, and whether channels have numbers of their own. Convolutions, products
without a graph, products of a node's features with themselves and linear maps are descriptions of this kind.

A polynomial of features has more factors, and coefficients of the site's target, such as a node's element. Of degree 3:

    coefficient[q, u] * feature[a, u] * feature[b, u] * feature[c, u] * out[k, u]
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace
from enum import StrEnum
from functools import cache, cached_property
from typing import NamedTuple

LAYOUTS = ("mul_ir", "ir_mul")
ITEM_BYTES = {"float32": 4, "float64": 8}
STORED_BYTES = {"bfloat16": 2, "float16": 2}
"""Of numbers that are only stored so: they are computed with as float32."""
ABSENT = "1"
"""Stands in a form for a factor that it lacks."""


class Index(StrEnum):
    """Which row of an operand a site reads."""

    TARGET = "target"
    SOURCE = "source"
    EDGE = "edge"  # the site's own, also where sites are rows and not edges
    ONE = "one"  # one row for all sites


class Channels(StrEnum):
    """Which numbers of an operand a channel reads."""

    NONE = "none"  # those that all channels share
    EACH = "each"  # its own
    PAIRS = "pairs"  # one for each pair of an input channel, its component, and an output channel: it mixes channels


class Block(NamedTuple):
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
class Operand:
    """A factor of M.

    Attributes:
        name: a word without digits; further operands of the same rows are named by it and a number.
        row: where its numbers lie.
        index: which row a site reads.
        channels: which numbers of it a channel reads.
        stored: "bfloat16" or "float16" if its numbers are stored so; None if they are as all others.
    """

    name: str
    row: Row
    index: Index
    channels: Channels = Channels.EACH
    stored: str | None = None


@dataclass(frozen=True)
class Path:
    """M += the sum over channels u and (i, j, k, c) of c * left[i, u] * right[j] * out[k, u] * weight[u].

    Attributes:
        blocks: of each factor the block in its operand's row. None for a factor that the path lacks, which is then 1.
        coefficients: (i, j, k, c): Clebsch-Gordan coefficient times normalisation. j is 0 without a right factor.
        monomials: in place of these for a polynomial: the component in each factor's block, in the form's order.
    """

    blocks: tuple[int | None, ...]
    coefficients: tuple[tuple[int, int, int, float], ...]
    monomials: tuple[tuple[int, ...], ...] = ()

    def block(self, factor: int) -> int:
        """The block of a factor that the path has."""
        found = self.blocks[factor]
        assert found is not None, f"the path lacks factor {factor}"
        return found


OUT, LEFT, RIGHT, WEIGHT = range(4)
"""Places of the factors in a form and in a path's blocks."""
COEFFICIENT, FEATURE = 1, 2  # of a polynomial; features follow up to its degree


@dataclass(frozen=True)
class Problem:
    """One form M.

    Args:
        operands: its factors, each once.
        form: the operands' names as factors out, left, right and weight. A name may occur twice, as in a square;
            `ABSENT` is no factor.
        paths: at least one.
        dtype: "float32" or "float64".
    """

    operands: tuple[Operand, ...]
    form: tuple[str, ...]
    paths: tuple[Path, ...]
    dtype: str = "float32"

    def __post_init__(self):
        if self.dtype not in ITEM_BYTES:
            raise ValueError(f"dtype: expected one of {sorted(ITEM_BYTES)}, got {self.dtype!r}")
        if not self.paths:
            raise ValueError("paths: a problem needs at least one path")
        for path in () if self._pairs else self.paths:
            if len({self._multiplicity(path, factor) for factor in (OUT, LEFT)}) > 1:
                raise ValueError(f"paths: the channels of {self.form[LEFT]} and {self.form[OUT]} differ in {path}")

    def __hash__(self):
        return hash(self.key)

    @cached_property
    def key(self) -> str:
        """A name that two problems share only if they are equal, in this process and any other."""
        return hashlib.sha256(repr(astuple(self)).encode()).hexdigest()[:24]

    @property
    def item_bytes(self) -> int:
        """Of a number that is computed with."""
        return ITEM_BYTES[self.dtype]

    def stored_bytes(self, name: str) -> int:
        """Of a number of an operand in memory."""
        stored = self.operand(name).stored
        return STORED_BYTES[stored] if stored else self.item_bytes

    @cache  # noqa: B019
    def stored(self, names: tuple[tuple[str, str | None], ...]) -> Problem:
        """The same problem, these operands stored as said."""
        ways = dict(names)
        operands = tuple(replace(o, stored=ways[o.name]) if o.name in ways else o for o in self.operands)
        return self if operands == self.operands else replace(self, operands=operands)

    @cached_property
    def _by_name(self) -> dict[str, Operand]:
        return {operand.name: operand for operand in self.operands}

    def operand(self, name: str) -> Operand:
        """The operand of this name, which may end in a number."""
        return self._by_name[base(name)]

    def row(self, name: str) -> Row:
        return self.operand(name).row

    def blocks(self, name: str, paths: Iterable[Path] | None = None) -> list[int]:
        """The blocks of the operand's row that paths (by default all) touch."""
        places = [place for place, factor in enumerate(self.form) if factor == base(name)]
        found = {path.blocks[place] for path in (self.paths if paths is None else paths) for place in places}
        return sorted(block for block in found if block is not None)

    @cache  # noqa: B019
    def is_summed(self, name: str) -> bool:
        """Whether several paths add to one block of the operand's gradient."""
        places = [place for place, factor in enumerate(self.form) if factor == base(name)]
        uses = [path.blocks[place] for path in self.paths for place in places if path.blocks[place] is not None]
        return len(uses) > len(set(uses))

    def covers(self, name: str) -> bool:
        """Whether paths touch all blocks of the operand's row: those of its gradient that none touches are zero."""
        return len(self.blocks(name)) == len(self.row(name).blocks)

    @property
    def has_graph(self) -> bool:
        """Whether sites are edges, whose ends are rows of their own."""
        return any(operand.index in (Index.TARGET, Index.SOURCE) for operand in self.operands)

    @property
    def is_linear_map(self) -> bool:
        """Whether weights that all sites share mix channels, which takes matrix products."""
        return Index.ONE in self._pairs

    @property
    def has_maps(self) -> bool:
        """Whether each site has weights of its own that mix channels."""
        return Index.EDGE in self._pairs

    @property
    def is_polynomial(self) -> bool:
        """Whether it is a polynomial of one operand's features."""
        return bool(self.paths[0].monomials)

    @property
    def _pairs(self) -> list[Index]:
        """The index of the operand that mixes channels, if there is one."""
        return [operand.index for operand in self.operands if operand.channels is Channels.PAIRS]

    def multiplicity(self, path: Path) -> int:
        return self._multiplicity(path, LEFT)

    def _multiplicity(self, path: Path, factor: int) -> int:
        return self.row(self.form[factor]).blocks[path.block(factor)].multiplicity

    @cache  # noqa: B019  (one object for each dtype, so that its key is computed once)
    def with_dtype(self, dtype: str) -> Problem:
        return self if dtype == self.dtype else replace(self, dtype=dtype)

    @cache  # noqa: B019
    def component_major(self) -> Problem:
        """The same problem, the channels of a component side by side: rows in other layouts are ir_mul."""
        return replace(self, operands=tuple(map(_component_major, self.operands)))

    def describe(self) -> str:
        """A table of the paths, for people."""
        rows = ", ".join(f"{o.name} {o.row.length} ({o.index})" for o in self.operands)
        names = [name for name in self.form if name != ABSENT]
        lines = [
            f"{'.'.join(self.form)}, {self.dtype}, {len(self.paths)} paths; numbers a row: {rows}",
            " ".join([f"{'path':>4} {'channels':>8}", *(f"{name + ' (l)':>8}" for name in names), f"{'terms':>5}"]),
        ]
        for n, path in enumerate(self.paths):
            shown = (
                "-" if block is None else f"{block} ({(self.row(name).blocks[block].dim - 1) // 2})"
                for name, block in zip(self.form, path.blocks, strict=True)
                if name != ABSENT
            )
            blocks = " ".join(f"{block:>8}" for block in shown)
            lines.append(f"{n:4d} {self.multiplicity(path):8d} {blocks} {len(path.coefficients or path.monomials):5d}")
        return "\n".join(lines)


def base(name: str) -> str:
    """The name of the operand whose rows this one is like: without the number."""
    return name.rstrip("0123456789")


def _component_major(operand: Operand) -> Operand:
    blocks = operand.row.blocks
    if operand.channels is not Channels.EACH or all(b.channel_stride == 1 or b.dim == 1 for b in blocks):
        return operand
    return replace(operand, row=channel_row([(block.multiplicity, block.dim) for block in blocks], "ir_mul"))


def channel_row(irreps: Iterable[tuple[int, int]], layout: str) -> Row:
    """The row of features with channels: `irreps` lists (multiplicity, dim)."""
    blocks, offset = [], 0
    for multiplicity, dim in irreps:
        strides = (1, dim) if layout == "mul_ir" else (multiplicity, 1)
        blocks.append(Block(offset, multiplicity, dim, *strides))
        offset += multiplicity * dim
    return Row(tuple(blocks), offset)


def copies_row(irreps: Iterable[tuple[int, int]], layout: str) -> Row:
    """The row of features without channels: each copy of an irrep is a block, which all channels see."""
    blocks, offset = [], 0
    for multiplicity, dim in irreps:
        for copy in range(multiplicity):
            start, stride = (copy * dim, 1) if layout == "mul_ir" else (copy, multiplicity)
            blocks.append(Block(offset + start, 1, dim, stride, 0))
        offset += multiplicity * dim
    return Row(tuple(blocks), offset)


def weight_row(shapes: Iterable[tuple[int, int]]) -> Row:
    """The row of weights of shape (channels, copies of the edge irrep) an instruction: a block a copy."""
    blocks, offset = [], 0
    for channels, copies in shapes:
        blocks += [Block(offset + copy, channels, 1, 0, copies) for copy in range(copies)]
        offset += channels * copies
    return Row(tuple(blocks), offset)


def pairs(offset: int, channels_in: int, channels_out: int, step: int | None = None) -> Block:
    """The block of a matrix of weights, whose components are input channels: `step` numbers apart, by default without
    gaps."""
    return Block(offset, channels_out, channels_in, channels_out if step is None else step, 1)
