"""One path of the linear maps that each site has for itself, as LLVM IR."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from llvmlite import ir

from ..body import Arithmetic
from ..linear import Step
from ..problem import LEFT, OUT, WEIGHT, Block
from . import ptx, vectors
from .loops import Loop
from .ptx import GLOBAL, I32, I64, SHARED
from .staging import LANES

if TYPE_CHECKING:
    from .maps_parts import MapsParts

Numbers = dict[tuple[str, int, int], ir.Value]
"""By operand, component, and channel of the lane's."""


class Lanes(NamedTuple):
    """How the lanes of a warp share out rows of weights, which are an input channel's.

    Attributes:
        width: successive output channels of a lane.
        across: lanes beside each other in a row; a power of two.
        rows: that a warp reads at a time.
        groups: of `width` channels in a row.
    """

    width: int
    across: int
    rows: int
    groups: int

    @property
    def parts(self) -> int:
        """Of a row, which the lanes read one after the other."""
        return -(-self.groups // self.across)


class Reads(NamedTuple):
    """What a lane has read for one input channel: of each operand the weights, and the features' components."""

    weights: dict[str, list[ir.Value]]
    features: dict[str, list[ir.Value]]


class Channel(NamedTuple):
    """A lane's input channel; `exists` is None where it certainly does, and the number is 0 where it does not."""

    number: ir.Value
    exists: ir.Value | None


class EmittedPath:
    """Emits a part of one path of several alike, of which `number` is the one: `lanes.across` groups of output
    channels, all input channels."""

    def __init__(self, parts: MapsParts, builder, alike: list[Step], number, part: int, rows: dict, sums, lane):
        self.parts, self.builder, self.part, self.rows, self.sums = parts, builder, part, rows, sums
        self.alike, self.path, self.found = alike, number, alike[0]
        self.lane, self.lanes = lane, parts.lanes[self.found.target]
        self.arithmetic = Arithmetic(builder, parts.problem.dtype)
        self.components, self.channels = range(self.found.target.dim), range(self.lanes.width)
        self.across = builder.and_(lane, I32(self.lanes.across - 1))
        self.down = builder.udiv(lane, I32(self.lanes.across))
        group = builder.add(self.across, I32(part * self.lanes.across))
        self.exists = None  # whether the lane has channels
        if self.lanes.groups % self.lanes.across and part == self.lanes.parts - 1:
            self.exists = builder.icmp_unsigned("<", group, I32(self.lanes.groups))
            group = builder.select(self.exists, group, I32(self.lanes.groups - 1))
        self.channel = builder.zext(builder.mul(group, I32(self.lanes.width)), I64)

    def emit(self) -> None:
        parts, rows = self.parts, self.lanes.rows
        self.cotangents = self._cotangents()
        outputs = [(name, k, j) for name in parts.at(OUT, parts.sums) for k in self.components for j in self.channels]
        totals = [ir.Constant(parts.scalar, 0.0)] * len(outputs)
        channels = self.found.source.multiplicity
        steps = -(-channels // rows)
        rounds = -(-steps // parts.rows_ahead)
        ahead = -(-steps // rounds)
        loop = Loop(self.builder, I32(0), I32(rounds * ahead * rows), I32(ahead * rows), totals) if rounds > 1 else None
        found = []
        for n in range(ahead):
            channel = self.builder.add(self.down, I32(n * rows))
            if loop:
                channel = self.builder.add(channel, loop.index)
            found.append(self._input_channel(channel, rounds * ahead * rows > channels))
        totals = self._channels(found, outputs, loop.carried if loop else totals)
        if loop:
            totals = loop.close(totals)
        self._add_sums(dict(zip(outputs, totals, strict=True)))

    def _input_channel(self, number, may_lack: bool) -> Channel:
        if not may_lack:
            return Channel(self.builder.zext(number, I64), None)
        count = I32(self.found.source.multiplicity)
        exists = self.builder.icmp_unsigned("<", number, count)
        number = self.builder.select(exists, number, I32(0))
        return Channel(self.builder.zext(number, I64), exists)

    def _cotangents(self) -> Numbers:
        """Those of the lane's channels, zero where it has none."""
        parts, builder, block = self.parts, self.builder, self.found.target
        result = {}
        for name in parts.at(OUT, parts.read):
            for k, j in product(self.components, self.channels):
                number = builder.mul(builder.add(self.channel, I64(j)), I64(block.channel_stride))
                number = builder.add(number, self._offset(lambda found: found.target, k * block.component_stride))
                value = self._scaled(builder.load(parts.pointer(builder, self.rows[name, "read"], number)))
                result[name, k, j] = self._if(self.exists, value)
        return result

    def _channels(self, rows: list[Channel], outputs: list, totals: Sequence[ir.Value]) -> list[ir.Value]:
        """Some input channels: all reads before the first use; returns the totals with their share."""
        reads = [self._reads(row) for row in rows]
        values = dict(zip(outputs, totals, strict=True))
        for row, read in zip(rows, reads, strict=True):
            for name, k, j in outputs:
                for one in self.parts.sums[name]:
                    factors = read.features[one.left][k], read.weights[one.right][j]
                    values[name, k, j] = self.arithmetic.fma(*factors, values[name, k, j])
            for name in self.parts.at(WEIGHT, self.parts.sums):
                self._write_weights(name, row, read)
            for name in self.parts.at(LEFT, self.parts.sums):
                self._write_features(name, row, read)
        return list(values.values())

    def _reads(self, row: Channel) -> Reads:
        parts, builder = self.parts, self.builder
        weights, features = {}, {}
        for name in parts.at(WEIGHT, parts.read):
            address, stored = self._weights(name, "read", row), parts.problem.operand(name).stored
            weights[name] = vectors.load(builder, address, self.lanes.width, parts.scalar, GLOBAL, stored)
        for name in parts.at(LEFT, parts.read):
            features[name] = [
                self._if(row.exists, builder.load(self._feature(name, "read", row, k))) for k in self.components
            ]
        return Reads(weights, features)

    def _write_weights(self, name: str, row: Channel, read: Reads) -> None:
        """The gradient by the lane's weights of an input channel."""
        values = []
        for j in self.channels:
            value = None
            for one, k in product(self.parts.sums[name], self.components):
                value = self.arithmetic.fma(read.features[one.left][k], self.cotangents[one.right, k, j], value)
            values.append(value)
        with self.builder.if_then(self._both(self.exists, row.exists)):
            stored = self.parts.problem.operand(name).stored
            vectors.store(self.builder, self._weights(name, "written", row), values, GLOBAL, stored)

    def _write_features(self, name: str, row: Channel, read: Reads) -> None:
        """The gradient by an input channel, summed over output channels: over lanes side by side."""
        values = []
        for k in self.components:
            value = None
            for one, j in product(self.parts.sums[name], self.channels):
                value = self.arithmetic.fma(self.cotangents[one.left, k, j], read.weights[one.right][j], value)
            distance = 1
            while distance < self.lanes.across:
                value = self.builder.fadd(value, ptx.exchange(self.builder, value, distance))
                distance *= 2
            values.append(value)
        is_first = self.builder.icmp_unsigned("==", self.across, I32(0))
        with self.builder.if_then(self._both(is_first, row.exists)):
            for k, value in enumerate(values):
                pointer = self._feature(name, "written", row, k)
                before = self.builder.load(pointer) if self.part else None
                self.builder.store(self.arithmetic.add(value, before), pointer)

    def _add_sums(self, totals: Numbers) -> None:
        parts, builder, lanes, block = self.parts, self.builder, self.lanes, self.found.target
        for name in parts.at(OUT, parts.sums):
            for k in self.components:
                number = (self.part * block.dim + k) * LANES * lanes.width * parts.item
                starts = (I32(parts.places[name, found.target] + number) for found in self.alike)
                place = builder.add(self.sums, self._of_path(starts))
                place = builder.add(place, builder.mul(self.lane, I32(lanes.width * parts.item)))
                before = vectors.load(builder, place, lanes.width, parts.scalar, SHARED)
                values = [builder.fadd(before[j], self._scaled(totals[name, k, j])) for j in self.channels]
                vectors.store(builder, place, values, SHARED)

    def _weights(self, name: str, of: str, channel: Channel):
        """The address of the lane's weights of its input channel."""
        number = self.builder.mul(channel.number, I64(self.found.weights.component_stride))
        number = self.builder.add(number, self._offset(lambda found: found.weights))
        size = I64(self.parts.problem.stored_bytes(name))
        return self.builder.add(self.rows[name, of], self.builder.mul(self.builder.add(number, self.channel), size))

    def _feature(self, name: str, of: str, channel: Channel, component: int):
        """A pointer to a component of the lane's input channel."""
        block = self.found.source
        number = self.builder.mul(channel.number, I64(block.channel_stride))
        first = self._offset(lambda found: found.source, component * block.component_stride)
        return self.parts.pointer(self.builder, self.rows[name, of], self.builder.add(number, first))

    def _offset(self, block: Callable[[Step], Block], further: int = 0):
        """Where the path's block begins, or a number `further` on."""
        return self._of_path(I64(block(found).offset + further) for found in self.alike)

    def _of_path(self, values: Iterable[ir.Value]):
        """Of values for each of the paths alike that of this one."""
        first, *others = values
        chosen = first
        for n, value in enumerate(others, 1):
            if value.constant != first.constant:
                chosen = self.builder.select(self.builder.icmp_unsigned("==", self.path, I32(n)), value, chosen)
        return chosen

    def _scaled(self, value):
        if all(found.factor == 1 for found in self.alike):
            return value
        return self.arithmetic.mul(value, self._of_path(self.arithmetic.constant(found.factor) for found in self.alike))

    def _if(self, condition, value):
        """The value, or zero where the condition is false; None is true."""
        return value if condition is None else self.builder.select(condition, value, ir.Constant(value.type, 0.0))

    def _both(self, *conditions):
        result = ir.IntType(1)(1)
        for condition in conditions:
            if condition is not None:
                result = self.builder.and_(result, condition)
        return result
