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
TILE = 32
"""Nodes, and channels, of what a block of the CUDA kernels computes."""


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
    def input_length(self) -> int:
        return sum(dim * multiplicity for dim, multiplicity in self.inputs)

    @property
    def output_length(self) -> int:
        return sum(dim * multiplicity for dim, multiplicity in self.outputs)

    @property
    def weight_numel(self) -> int:
        return sum(source.multiplicity * output.multiplicity for source, output, _, _ in self._products)

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
        return {FORWARD: self._forward_table, TRANSPOSED: self._transposed_table, WEIGHTS: self._weight_table}[part]()

    def _forward_table(self) -> Table:
        groups = [[p for p in self._products if p[1] == output] for output in _slots(self.outputs)]
        return _table(_slots(self.outputs), [[(s, w) for s, _, w, _ in g] for g in groups], self.factors)

    def _transposed_table(self) -> Table:
        groups = [[p for p in self._products if p[0] == source] for source in _slots(self.inputs)]
        factors = [group[0][3] if group else 0.0 for group in groups]  # an input slot goes to one output
        return _table(_slots(self.inputs), [[(o, w) for _, o, w, _ in g] for g in groups], factors)

    def _weight_table(self) -> Table:
        rows = [[*source, output.start, output.multiplicity, weight] for source, output, weight, _ in self._products]
        return Table(_integers(rows, 6), _integers([], 3), np.array([p[3] for p in self._products]))


class Table(NamedTuple):
    """What a kernel reads of a mixing.

    Attributes:
        groups: int32; what is written: start, components, channels, then the first of its terms and their number. Of
            gradients by weights: start, components and channels of the input, start and channels of the output,
            first weight.
        terms: int32; what a group sums over: start of a slot, its channels, first weight.
        factors: float64, of each group.
    """

    groups: np.ndarray
    terms: np.ndarray
    factors: np.ndarray

    def blocks(self) -> tuple[int, int]:
        """Blocks of the kernel: so many, and so many for each tile of nodes."""
        if self.groups.shape[1] == 6:
            return sum(tiles(rows) * tiles(columns) for _, _, rows, _, columns, _ in self.groups.tolist()), 0
        return 0, sum(dim * tiles(channels) for _, dim, channels, *_ in self.groups.tolist())


def tiles(count: int) -> int:
    return -(-count // TILE)


def _slots(shapes: Sequence[tuple[int, int]]) -> list[Slot]:
    starts = accumulate((dim * multiplicity for dim, multiplicity in shapes), initial=0)
    return [Slot(start, *shape) for start, shape in zip(starts, shapes, strict=False)]


def _table(written: list[Slot], terms: list[list[tuple[Slot, int]]], factors: Sequence[float]) -> Table:
    firsts = accumulate(map(len, terms), initial=0)
    groups = [[*slot, first, len(group)] for slot, first, group in zip(written, firsts, terms, strict=False)]
    flat = [[slot.start, slot.multiplicity, weight] for group in terms for slot, weight in group]
    return Table(_integers(groups, 5), _integers(flat, 3), np.array(factors, dtype=np.float64))


def _integers(rows: list[list[int]], columns: int) -> np.ndarray:
    return np.array(rows, dtype=np.int32).reshape(-1, columns)
