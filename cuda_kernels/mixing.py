"""A linear map of equivariant features: the channels of equal irreps are mixed, component by component.

A row of features has slots of (2l+1) x multiplicity numbers, component-major. An output slot is the sum over its input
slots of ``factor * x[component, u] * weight[u, v]``; the weights of all outputs lie one after the other, those of an
output's input slots below each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import numpy as np

FORWARD, TRANSPOSED, WEIGHTS = "forward", "transposed", "weights"
"""What kernels compute: outputs, gradients by inputs, gradients by weights."""
TILE, FOUR = 32, 4
"""Nodes, and channels, of what a block of the CUDA kernels computes; numbers that its threads read at a time."""


class Slot(NamedTuple):
    """A slot of a row: where it starts, its components, and its channels."""

    start: int
    dim: int
    multiplicity: int


@dataclass(frozen=True)
class Mixing:
    """A linear map between two rows.

    Attributes:
        inputs, outputs: (2l+1, multiplicity) of each slot.
        sources: for each output the numbers of the input slots that it sums over, which have its dimension.
        factors: for each output.
    """

    inputs: tuple[tuple[int, int], ...]
    outputs: tuple[tuple[int, int], ...]
    sources: tuple[tuple[int, ...], ...]
    factors: tuple[float, ...]

    @property
    def in_fours(self) -> bool:
        """Whether all multiplicities are multiples of `FOUR`, as the CUDA kernels need them."""
        return all(multiplicity % FOUR == 0 for _, multiplicity in (*self.inputs, *self.outputs))

    def shape(self, part: str, nodes: int) -> tuple[int, ...]:
        """Of what the kernel of this part writes."""
        length = self._lengths[part]
        return (length,) if part == WEIGHTS else (nodes, length)

    @cached_property
    def _lengths(self) -> dict[str, int]:
        """Numbers in a row of what each part writes."""
        return {
            FORWARD: sum(dim * channels for dim, channels in self.outputs),
            TRANSPOSED: sum(dim * channels for dim, channels in self.inputs),
            WEIGHTS: sum(source.multiplicity * output.multiplicity for source, output, _, _ in self._products),
        }

    @cached_property
    def _products(self) -> list[tuple[Slot, Slot, int, float]]:
        """Input slot, output slot, first weight and factor of each product of a slot with a matrix."""
        inputs, outputs = _slots(self.inputs), _slots(self.outputs)
        products, weight = [], 0
        for output, sources, factor in zip(outputs, self.sources, self.factors, strict=True):
            for source in (inputs[number] for number in sources):
                products.append((source, output, weight, factor))
                weight += source.multiplicity * output.multiplicity
        return products

    def table(self, part: str) -> Table:
        """What the kernel of this part reads."""
        if part == WEIGHTS:
            return self._weight_table()
        inputs, outputs = _slots(self.inputs), _slots(self.outputs)
        if part == FORWARD:
            terms = [[(s, w) for s, o, w, _ in self._products if o == output] for output in outputs]
            return _table(outputs, terms, self.factors, transposed=False)
        terms = [[(o, w) for s, o, w, _ in self._products if s == source] for source in inputs]
        factors = [next((f for s, _, _, f in self._products if s == source), 0.0) for source in inputs]
        return _table(inputs, terms, factors, transposed=True)

    def _weight_table(self) -> Table:
        rows, factors = [], []
        for source, output, weight, factor in self._products:
            for u in range(0, source.multiplicity, TILE):
                for v in range(0, output.multiplicity, TILE):
                    left = source.start + u, source.multiplicity, min(TILE, source.multiplicity - u)
                    right = output.start + v, output.multiplicity, min(TILE, output.multiplicity - v)
                    rows.append([source.dim, *left, *right, weight + u * output.multiplicity + v])
                    factors.append(factor)
        return Table(_integers(rows, 8), _integers([], 3), np.array(factors, np.float64))


class Table(NamedTuple):
    """What a kernel reads of a mixing: a row for each tile.

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
    return -(-nodes // TILE)


def _table(
    written: list[Slot], terms: list[list[tuple[Slot, int]]], factors: Sequence[float], transposed: bool
) -> Table:
    rows, summed, tile_factors = [], [], []
    for slot, sources, factor in zip(written, terms, factors, strict=True):
        for component in range(slot.dim):
            for channel in range(0, slot.multiplicity, TILE):
                first = len(summed)
                for source, weight in sources:
                    offset = channel * source.multiplicity if transposed else channel
                    place = source.start + component * source.multiplicity
                    summed.append([place, source.multiplicity, weight + offset])
                place = slot.start + component * slot.multiplicity + channel
                left = min(TILE, slot.multiplicity - channel)
                rows.append([place, left, first, len(summed), slot.multiplicity, 0, 0, 0])
                tile_factors.append(factor)
    return Table(_integers(rows, 8), _integers(summed, 3), np.array(tile_factors, np.float64))


def _slots(shapes: Sequence[tuple[int, int]]) -> list[Slot]:
    starts = accumulate((dim * multiplicity for dim, multiplicity in shapes), initial=0)
    return [Slot(start, *shape) for start, shape in zip(starts, shapes, strict=False)]


def _integers(rows: list[list[int]], columns: int) -> np.ndarray:
    return np.array(rows, dtype=np.int32).reshape(-1, columns)
