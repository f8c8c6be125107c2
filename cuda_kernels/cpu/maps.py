"""One edge's linear maps on a CPU: for each path a loop over input channels, output channels in vector registers."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

from llvmlite import ir
from numba.core import cgutils

from ..linear import Step, steps
from ..maps import sums_of
from ..problem import LEFT, OUT, WEIGHT, Block, base
from .edge import INPUT, OUTPUT, Emitter
from .rows import I64, loop

AT_ONCE = 4
"""Vectors of a row of weights that are in registers, beside as many of each component of outputs (an estimate)."""


class Columns(NamedTuple):
    """Successive output channels in a vector."""

    start: int
    width: int


class Maps(Emitter):
    """For each path a loop over input channels."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.sums, self.item = sums_of(self.contraction), self.problem.item_bytes
        self.read = {name for found in self.sums.values() for one in found for name in (one.left, one.right)}

    def emit(self) -> None:
        for found in steps(self.problem):
            columns = _columns(found.target.multiplicity, self.max_width)
            for n in range(0, len(columns), AT_ONCE):
                self._columns(found, columns[n : n + AT_ONCE], adds=n > 0)

    def _columns(self, found: Step, columns: list[Columns], adds: bool) -> None:
        """These output channels of a path; `adds` to the gradients by features, of which others have a part."""
        numbers = list(product(range(found.target.dim), columns))
        cotangents = {
            name: {(k, c): self._scaled(found, self._load(name, found.target, k, c)) for k, c in numbers}
            for name in self._of(OUT, self.read)
        }
        totals = {name: {n: self._zero(n[1]) for n in numbers} for name in self._of(OUT, self.sums)}
        with loop(self.builder, found.source.multiplicity, 1) as u:
            self._channel(found, columns, u, cotangents, totals, adds)
        for name, each in totals.items():
            for (k, c), total in each.items():
                value = self._scaled(found, self.builder.load(total))
                place = self._vector(name, OUTPUT, found.target, I64(k), I64(c.start), c)
                before = self.builder.load(place, align=self.item) if self.is_summed(name) else None
                self.builder.store(self.arithmetic.add(value, before), place, align=self.item)

    def _channel(self, found: Step, columns: list[Columns], u, cotangents: dict, totals: dict, adds: bool) -> None:
        """One input channel."""
        components = range(found.target.dim)
        weights = {
            name: {c: self._load_row(name, found.weights, u, c) for c in columns}
            for name in self._of(WEIGHT, self.read)
        }
        features = {
            name: [self.builder.load(self._place(name, INPUT, found.source, I64(k), u)) for k in components]
            for name in self._of(LEFT, self.read)
        }
        for name, each in totals.items():
            for (k, c), total in each.items():
                value = self.builder.load(total)
                for one in self.sums[name]:
                    value = self.arithmetic.fma(features[one.left][k], weights[one.right][c], value)
                self.builder.store(value, total)
        for name in self._of(WEIGHT, self.sums):
            for c in columns:
                value = None
                for one, k in product(self.sums[name], components):
                    value = self.arithmetic.fma(features[one.left][k], cotangents[one.right][k, c], value)
                self.builder.store(
                    value, self._vector(name, OUTPUT, found.weights, u, I64(c.start), c), align=self.item
                )
        for name, k in product(self._of(LEFT, self.sums), components):
            value = self._dot(name, k, columns, weights, cotangents)
            place = self._place(name, OUTPUT, found.source, I64(k), u)
            self.builder.store(self.arithmetic.add(value, self.builder.load(place) if adds else None), place)

    def _dot(self, name: str, k: int, columns: list[Columns], weights: dict, cotangents: dict):
        """The sum over output channels, of vectors of one width first."""
        by_width: dict[int, ir.Value] = {}
        for one, c in product(self.sums[name], columns):
            factors = cotangents[one.left][k, c], weights[one.right][c]
            by_width[c.width] = self.arithmetic.fma(*factors, by_width.get(c.width))
        total = None
        for value in by_width.values():
            total = self.arithmetic.add(self._sum(value), total)
        return total

    def _sum(self, value):
        """The sum of a vector's numbers, in halves."""
        if not isinstance(value.type, ir.VectorType):
            return value
        half = value.type.count
        while half > 1:
            half //= 2
            kind = ir.VectorType(ir.IntType(32), half)
            low, high = (ir.Constant(kind, list(range(start, start + half))) for start in (0, half))
            value = self.builder.fadd(*(self.builder.shuffle_vector(value, value, lanes) for lanes in (low, high)))
        return self.builder.extract_element(value, ir.IntType(32)(0))

    def _of(self, place: int, names) -> list[str]:
        """Those that are like the operand at this place of the form."""
        return [name for name in names if base(name) == self.problem.form[place]]

    def _scaled(self, found: Step, value):
        return value if found.factor == 1 else self.arithmetic.mul(value, self.arithmetic.constant(found.factor))

    def _kind(self, columns: Columns) -> ir.Type:
        return ir.VectorType(self.scalar, columns.width) if columns.width > 1 else self.scalar

    def _zero(self, columns: Columns):
        """A variable that begins with zeros; LLVM keeps it in registers."""
        place = cgutils.alloca_once(self.builder, self._kind(columns))
        self.builder.store(ir.Constant(self._kind(columns), None), place)
        return place

    def _load(self, name: str, block: Block, component: int, columns: Columns):
        place = self._vector(name, INPUT, block, I64(component), I64(columns.start), columns)
        return self.builder.load(place, align=self.item)

    def _load_row(self, name: str, block: Block, u, columns: Columns):
        return self.builder.load(self._vector(name, INPUT, block, u, I64(columns.start), columns), align=self.item)

    def _vector(self, name: str, use: str, block: Block, component, channel, columns: Columns):
        place = self._place(name, use, block, component, channel)
        return self.builder.bitcast(place, self._kind(columns).as_pointer())

    def _place(self, name: str, use: str, block: Block, component, channel):
        """A pointer to a number of the edge's row; component and channel are I64."""
        steps = ((component, block.component_stride), (channel, block.channel_stride))
        offset = I64(block.offset)
        for number, stride in steps:
            offset = self.builder.add(offset, self.builder.mul(number, I64(stride)))
        address = self.builder.add(self.addresses[name, use], self.builder.mul(offset, I64(self.item)))
        return self.builder.inttoptr(address, self.scalar.as_pointer())


def _columns(channels: int, width: int) -> list[Columns]:
    """All output channels, in vectors as wide as there are."""
    result, start = [], 0
    while start < channels:
        while width > channels - start:
            width //= 2
        result.append(Columns(start, width))
        start += width
    return result
