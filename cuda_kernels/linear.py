"""A linear map of features: weights mix the channels of equal irreps, component by component.

Rows are component-major. An output block is the sum over its paths of ``factor * x[component, u] * weight[u, v]``. The
form g.x.1.w has three derivatives, each a matrix product of two of its operands, which a kernel of its own computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from .contraction import Contraction
from .problem import LEFT, OUT, WEIGHT, Block, Problem

TILE, FOUR = 32, 4
"""Nodes, and channels, of what a block of the CUDA kernels computes; numbers that its threads read at a time."""


class Part(StrEnum):
    """What a kernel computes."""

    MAP = "map"  # the output
    TRANSPOSE = "transpose"  # the gradient by features
    WEIGHTS = "weights"  # the gradient by weights


_PARTS = {OUT: (Part.MAP, LEFT, WEIGHT), LEFT: (Part.TRANSPOSE, OUT, WEIGHT), WEIGHT: (Part.WEIGHTS, LEFT, OUT)}
"""For each factor the part that is its gradient, and the two factors that this reads."""


class Product(NamedTuple):
    """One matrix product of a contraction: output += part(left, right)."""

    output: str
    part: Part
    left: str
    right: str


def products(contraction: Contraction) -> list[Product]:
    """What a contraction of a linear map consists of."""
    return [
        Product(output, part, term[left], term[right])
        for output in contraction.outputs
        for term in contraction.terms
        for place, (part, left, right) in _PARTS.items()
        if term[place] == output
    ]


def in_fours(problem: Problem) -> bool:
    """Whether all multiplicities are multiples of `FOUR`, as the CUDA kernels need them."""
    rows = (problem.row(problem.form[place]) for place in (OUT, LEFT))
    return all(block.multiplicity % FOUR == 0 for row in rows for block in row.blocks)


class Step(NamedTuple):
    """A path: the blocks of input, output and weights; the coefficient of all components."""

    source: Block
    target: Block
    weights: Block
    factor: float


def steps(problem: Problem) -> list[Step]:
    """The paths, in order."""
    out, left, weight = (problem.row(problem.form[place]).blocks for place in (OUT, LEFT, WEIGHT))
    return [
        Step(left[p.block(LEFT)], out[p.block(OUT)], weight[p.block(WEIGHT)], p.coefficients[0][3])
        for p in problem.paths
    ]


class Table(NamedTuple):
    """What a kernel reads of a problem: a row for each tile.

    Attributes:
        tiles: int32 (tiles, 8). Of outputs: the place of the tile in a row of what is written, its channels, the first
            of its terms and the one after the last, numbers in a row of the weights, and three that are not used. Of
            gradients by weights: components; place in a row of inputs, channels of the slot and of the tile; the same
            of outputs; first weight.
        terms: int32 (terms, 3), what a tile sums over: place in a row of what is read, channels, first weight.
        factors: float64, of each tile.
    """

    tiles: np.ndarray
    terms: np.ndarray
    factors: np.ndarray


def tiles_of(nodes: int) -> int:
    """Tiles that hold so many nodes."""
    return -(-nodes // TILE)


def table(problem: Problem, part: Part) -> Table:
    """What the kernel of this part reads."""
    found = steps(problem)
    if part is Part.WEIGHTS:
        return _weight_table(found)
    if part is Part.MAP:
        written = problem.row(problem.form[OUT]).blocks
        terms = [[(s.source, s.weights.offset, s.factor) for s in found if s.target == block] for block in written]
    else:
        written = problem.row(problem.form[LEFT]).blocks
        terms = [[(s.target, s.weights.offset, s.factor) for s in found if s.source == block] for block in written]
    return _block_table(written, terms, transposed=part is Part.TRANSPOSE)


def _block_table(written: Sequence[Block], terms: list[list[tuple[Block, int, float]]], transposed: bool) -> Table:
    rows: list[list[int]] = []
    summed: list[list[int]] = []
    factors: list[float] = []
    for block, sources in zip(written, terms, strict=True):
        (factor,) = {factor for *_, factor in sources} or {0.0}  # one for a tile
        for component in range(block.dim):
            for channel in range(0, block.multiplicity, TILE):
                first = len(summed)
                for source, weight, _ in sources:
                    offset = channel * source.multiplicity if transposed else channel
                    start = source.offset + component * source.multiplicity
                    summed.append([start, source.multiplicity, weight + offset])
                start = block.offset + component * block.multiplicity + channel
                left = min(TILE, block.multiplicity - channel)
                rows.append([start, left, first, len(summed), block.multiplicity, 0, 0, 0])
                factors.append(factor)
    return Table(_integers(rows, 8), _integers(summed, 3), np.array(factors, np.float64))


def _weight_table(found: list[Step]) -> Table:
    rows, factors = [], []
    for source, target, weights, factor in found:
        for u in range(0, source.multiplicity, TILE):
            for v in range(0, target.multiplicity, TILE):
                left = source.offset + u, source.multiplicity, min(TILE, source.multiplicity - u)
                right = target.offset + v, target.multiplicity, min(TILE, target.multiplicity - v)
                rows.append([source.dim, *left, *right, weights.offset + u * target.multiplicity + v])
                factors.append(factor)
    return Table(_integers(rows, 8), _integers([], 3), np.array(factors, np.float64))


def _integers(rows: list[list[int]], columns: int) -> np.ndarray:
    return np.array(rows, dtype=np.int32).reshape(-1, columns)
