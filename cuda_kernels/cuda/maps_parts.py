"""The parts of the kernel of linear maps that each site has for itself, as numba intrinsics that emit LLVM IR."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import NamedTuple

from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import intrinsic

from ..body import SCALAR, Arithmetic
from ..contraction import Contraction
from ..maps import Map, maps, sums_of
from ..problem import LEFT, OUT, WEIGHT, Block, Problem, base
from . import ptx, vectors
from .lists import Lists
from .loops import Loop
from .ptx import GLOBAL, I32, I64, SHARED
from .staging import LANES, WIDE

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


class MapsParts(Lists):
    """What `maps.kernel_of` is written with; each method's docstring is the documentation of the intrinsic that it
    makes. Types are those of `parts.Parts`.

    Sums over a node's edges lie in shared memory: for each output, block, part and component `width` numbers a lane.

    Args:
        rows_ahead: how many times a warp reads rows before it uses the first of them.
    """

    def __init__(self, problem: Problem, contraction: Contraction, rows_ahead: int):
        super().__init__(problem)
        self.contraction, self.rows_ahead = contraction, rows_ahead
        self.scalar, self.number, self.item = SCALAR[problem.dtype], getattr(types, problem.dtype), problem.item_bytes
        self.maps, self.sums = maps(problem), sums_of(contraction)
        self.read = {name for found in self.sums.values() for one in found for name in (one.left, one.right)}
        self.lanes = {block: self._lanes(block) for block in dict.fromkeys(found.target for found in self.maps)}
        self.groups = self._groups()
        self.places, self.sums_bytes = {}, 0
        for name, (block, lanes) in product(self._of(OUT, self.sums), self.lanes.items()):
            self.places[name, block] = self.sums_bytes
            self.sums_bytes += lanes.parts * block.dim * LANES * lanes.width * self.item

    def _groups(self) -> list[list[Map]]:
        """Paths that differ in their places only: one loop serves those of a group."""
        groups: dict[tuple, list[Map]] = {}
        for found in self.maps:
            shape = *(block._replace(offset=0) for block in found[:3]), self.lanes[found.target]
            groups.setdefault(shape, []).append(found)
        return list(groups.values())

    def _lanes(self, block) -> Lanes:
        """For all paths to a block of the output."""
        weight = self.problem.form[WEIGHT]
        width = WIDE // self.problem.stored_bytes(weight)
        numbers = [block.multiplicity, self.problem.row(weight).length]
        for found in self.maps:
            if found.target == block:
                numbers += [found.weights.offset, found.weights.component_stride]
        while any(number % width for number in numbers):
            width //= 2
        groups = block.multiplicity // width
        across = min(LANES, 1 << (groups - 1).bit_length())
        return Lanes(width, across, LANES // across, groups)

    @property
    def has_owned_sums(self) -> bool:
        """Whether a node's sums are written when all of its edges are done."""
        return self.problem.has_graph and bool(self.sums_bytes)

    def contract_sites(self):
        """(inputs, outputs, sums, edges, node, position, end, step, lane): all outputs' shares of the edges at
        position, position + step and so on below end. Without a graph, a site's sums are written at once."""

        @intrinsic
        def contract_sites(typingctx, inputs, outputs, sums, edges, node, position, end, step, lane):
            def codegen(context, builder, signature, arguments):
                inputs, outputs, sums, edges, node, position, end, step, lane = arguments
                self._clear_sums(builder, sums, lane)
                sites = Loop(builder, position, end, step)
                edge = self._site(builder, edges, sites.index)
                self._contract(builder, inputs, outputs, sums, node if self.problem.has_graph else edge, edge, lane)
                if self.sums_bytes and not self.problem.has_graph:
                    ptx.synchronize_warp(builder)
                    self._write_sums(builder, outputs, edge, sums, I32(1), lane, I32(LANES))
                    ptx.synchronize_warp(builder)
                    self._clear_sums(builder, sums, lane)
                sites.close()
                return context.get_dummy_value()

            return types.void(inputs, outputs, types.uint32, types.uint64, *[types.uint32] * 5), codegen

        return contract_sites

    def write_sums(self):
        """(outputs, row, sums, count, thread, threads): the rows of outputs, each number the sum over the lanes of
        `count` warps that have a part in it."""

        @intrinsic
        def write_sums(typingctx, outputs, row, sums, count, thread, threads):
            def codegen(context, builder, signature, arguments):
                self._write_sums(builder, *arguments)
                return context.get_dummy_value()

            return types.void(outputs, *[types.uint32] * 5), codegen

        return write_sums

    def _clear_sums(self, builder, sums, lane) -> None:
        if not self.sums_bytes:
            return
        zeros = ir.Constant(ir.VectorType(self.scalar, WIDE // self.item), None)
        own, end = builder.add(sums, builder.mul(lane, I32(WIDE))), builder.add(sums, I32(self.sums_bytes))
        whole = Loop(builder, own, end, I32(LANES * WIDE))
        builder.store(zeros, builder.inttoptr(whole.index, ir.PointerType(zeros.type, SHARED)), align=WIDE)
        whole.close()
        ptx.synchronize_warp(builder)  # a lane has cleared others' sums

    def _contract(self, builder, inputs, outputs, sums, node, edge, lane) -> None:
        """An edge's share of all outputs."""
        rows = {
            (name, of): self._row(builder, addresses, names, name, node, edge)
            for of, addresses, names in (
                ("read", inputs, self.contraction.inputs),
                ("written", outputs, self.contraction.outputs),
            )
            for name in names
        }
        for alike in self.groups:
            number = Loop(builder, I32(0), I32(len(alike)), I32(1)) if len(alike) > 1 else None
            for part in range(self.lanes[alike[0].target].parts):
                _Path(self, builder, alike, number.index if number else I32(0), part, rows, sums, lane).emit()
            if number:
                number.close()

    def _write_sums(self, builder, outputs, row, sums, count, thread, threads) -> None:
        for (name, block), start in self.places.items():
            lanes = self.lanes[block]
            target = self._row(builder, outputs, self.contraction.outputs, name, row, row)
            each = Loop(builder, thread, I32(block.dim * block.multiplicity), threads)
            component = builder.udiv(each.index, I32(block.multiplicity))
            channel = builder.urem(each.index, I32(block.multiplicity))
            group, within = builder.udiv(channel, I32(lanes.width)), builder.urem(channel, I32(lanes.width))
            part, across = builder.udiv(group, I32(lanes.across)), builder.urem(group, I32(lanes.across))
            place = builder.add(builder.mul(part, I32(block.dim)), component)
            place = builder.add(builder.mul(place, I32(LANES)), across)
            place = builder.add(builder.mul(place, I32(lanes.width)), within)
            place = builder.add(builder.add(sums, I32(start)), builder.mul(place, I32(self.item)))
            total = self._total(builder, place, count, lanes)
            number = builder.mul(component, I32(block.component_stride))
            number = builder.add(number, builder.mul(channel, I32(block.channel_stride)))
            number = builder.add(number, I32(block.offset))
            builder.store(total, self._number(builder, target, builder.zext(number, I64)))
            each.close()

    def _total(self, builder, place, count, lanes: Lanes):
        """The sum over `count` warps of the lanes that read other rows."""
        warp = Loop(builder, I32(0), count, I32(1), [ir.Constant(self.scalar, 0.0)])
        start = builder.add(place, builder.mul(warp.index, I32(self.sums_bytes)))
        (total,) = warp.carried
        for row in range(lanes.rows):
            at = builder.add(start, I32(row * lanes.across * lanes.width * self.item))
            total = builder.fadd(total, builder.load(builder.inttoptr(at, ir.PointerType(self.scalar, SHARED))))
        (total,) = warp.close([total])
        return total

    def _row(self, builder, addresses, names: Sequence[str], name: str, node, edge):
        """The address of an operand's row."""
        start = builder.extract_value(addresses, names.index(name))
        number = node if base(name) == self.problem.form[OUT] else edge
        size = self.problem.row(name).length * self.problem.stored_bytes(name)
        return builder.add(start, builder.mul(builder.zext(number, I64), I64(size)))

    def _number(self, builder, row, number):
        """A pointer to a number of a row in global memory."""
        return builder.inttoptr(
            builder.add(row, builder.mul(number, I64(self.item))), ir.PointerType(self.scalar, GLOBAL)
        )

    def _of(self, place: int, names: Iterable[str]) -> list[str]:
        """Those that are like the operand at this place of the form, in the contraction's order."""
        return sorted(name for name in names if base(name) == self.problem.form[place])


class _Path:
    """Emits a part of one path of several alike, of which `number` is the one: `lanes.across` groups of output
    channels, all input channels."""

    def __init__(self, parts: MapsParts, builder, alike: list[Map], number, part: int, rows: dict, sums, lane):
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
        outputs = [(name, k, j) for name in parts._of(OUT, parts.sums) for k in self.components for j in self.channels]
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
        for name in parts._of(OUT, parts.read):
            for k, j in product(self.components, self.channels):
                number = builder.mul(builder.add(self.channel, I64(j)), I64(block.channel_stride))
                number = builder.add(number, self._offset(lambda found: found.target, k * block.component_stride))
                value = self._scaled(builder.load(parts._number(builder, self.rows[name, "read"], number)))
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
            for name in self.parts._of(WEIGHT, self.parts.sums):
                self._write_weights(name, row, read)
            for name in self.parts._of(LEFT, self.parts.sums):
                self._write_features(name, row, read)
        return list(values.values())

    def _reads(self, row: Channel) -> Reads:
        parts, builder = self.parts, self.builder
        weights, features = {}, {}
        for name in parts._of(WEIGHT, parts.read):
            address, stored = self._weights(name, "read", row), parts.problem.operand(name).stored
            weights[name] = vectors.load(builder, address, self.lanes.width, parts.scalar, GLOBAL, stored)
        for name in parts._of(LEFT, parts.read):
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
        for name in parts._of(OUT, parts.sums):
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
        return self.parts._number(self.builder, self.rows[name, of], self.builder.add(number, first))

    def _offset(self, block: Callable[[Map], Block], further: int = 0):
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
