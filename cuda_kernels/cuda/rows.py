"""Where a lane finds its numbers: rows in global memory, and in shared memory what is kept of them."""

from __future__ import annotations

from llvmlite import ir
from numba.cuda import types
from numba.cuda.cgutils import unpack_tuple

from ..body import SCALAR
from ..polynomial import Element
from ..problem import OUT, Index, base
from . import ptx
from .lists import Lists
from .ptx import GLOBAL, I32, I64, SHARED
from .segment import Segment
from .staging import LANES


class Rows(Lists):
    """Emits addresses, loads and additions for the rows of a segment's operands, and the tuples that carry numbers."""

    def __init__(self, segment: Segment):
        super().__init__(segment.problem)
        self.segment, self.contraction = segment, segment.contraction
        self.scalar = SCALAR[self.problem.dtype]
        number = getattr(types, self.problem.dtype)
        self.number = number
        # An empty tuple cannot be carried through a loop: one unused number stands for it.
        self.sums_type = types.UniTuple(number, max(1, len(segment.owned_outputs)))
        self.owned_type = types.UniTuple(number, 1 if segment.in_shared else max(1, len(segment.owned_inputs)))
        self.gradients_type = types.UniTuple(number, max(1, len(segment.edge_outputs)))

    def _row(self, builder, address, name: str, edge, node, as_input: bool = False):
        """The address of the operand's row for this edge, or for this node; gradients of a row that all edges share
        have one for each edge."""
        index = self.problem.operand(name).index
        if as_input and index is Index.ONE:
            return address
        number = node if index in (Index.TARGET, Index.SOURCE) else edge
        size = self.problem.row(name).length * self.problem.stored_bytes(name)
        return builder.add(address, builder.mul(builder.zext(number, I64), I64(size)))

    def _node_place(self, builder, addresses, operands, element, row, channel, lane):
        base = builder.extract_value(addresses, operands.index(element[0]))
        return self._channel_place(builder, self._row(builder, base, element[0], row, row), element, channel, lane)

    def _kept_pointer(self, builder, kept, lane, element):
        """Where a lane's number of the owned node waits in shared memory: a row of lanes for each element."""
        item = self.problem.item_bytes
        number = builder.add(lane, I32(self.segment.owned_inputs.index(element) * LANES))
        place = builder.add(kept, builder.mul(number, I32(item)))
        return builder.inttoptr(place, ir.PointerType(self.scalar, SHARED))

    def _channel_place(self, builder, row, element, channel, lane):
        block = self.problem.row(element[0]).blocks[element[1]]
        item = self.problem.stored_bytes(element[0])
        number = builder.mul(builder.add(channel, lane), I32(block.channel_stride * item))
        constant = I64((block.offset + element[2] * block.component_stride) * item)
        return builder.add(builder.add(row, builder.zext(number, I64)), constant)

    def _source(self, builder, sources, channel, lane):
        """The byte that this lane copies from, after the copy's start: one affine function of the lane for each run."""
        offset = None
        for source in sources:
            affine = builder.add(
                builder.mul(lane, I32(source.lane_step)), I32(source.offset - source.first_lane * source.lane_step)
            )
            affine = builder.add(affine, builder.mul(channel, I32(source.channel_step)))
            after = offset is not None and builder.icmp_unsigned(">=", lane, I32(source.first_lane))
            offset = builder.select(after, affine, offset) if after else affine
        return builder.sext(offset, I64)

    def _channel_exists(self, builder, channel, lane):
        return builder.icmp_unsigned("<", builder.add(channel, lane), I32(self.segment.multiplicity))

    def _where_channel_exists(self, builder, channel, lane):
        exists = self._channel_exists(builder, channel, lane) if self.segment.masked else ir.IntType(1)(1)
        return builder.if_then(exists)

    def _load_global(self, builder, place, channel, lane):
        pointer = builder.inttoptr(place, ir.PointerType(self.scalar, GLOBAL))
        if not self.segment.masked:
            return builder.load(pointer)
        return self._load_if(builder, pointer, self._channel_exists(builder, channel, lane))

    def _store(self, builder, place, element: Element, value) -> None:
        """Store a number, plus what an earlier segment left there."""
        stored = self.problem.operand(element[0]).stored
        pointer = self._pointer(builder, place, stored, GLOBAL)
        if element[:2] in self.segment.adds:
            value = builder.fadd(value, ptx.widened(builder, builder.load(pointer), stored))
        builder.store(ptx.narrowed(builder, value, stored), pointer)

    def _pointer(self, builder, place, stored: str | None, space: int):
        return builder.inttoptr(place, ir.PointerType(ptx.I16 if stored else self.scalar, space))

    def _load_if(self, builder, pointer, condition):
        """The number there, or zero where it must not be read."""
        kind, before = pointer.type.pointee, builder.block
        with builder.if_then(condition):
            inside, loaded = builder.block, builder.load(pointer)
        value = builder.phi(kind)
        value.add_incoming(ir.Constant(kind, None), before)
        value.add_incoming(loaded, inside)
        return value

    def _add_block(self, builder, row, name: str, number: int, values: list, channel, lane, scratch) -> None:
        """Add a block of the far node's gradients, values[i] being this lane's component i, to the row."""
        placed = self._placed(builder, row, name, number, values, channel, lane, scratch)
        with self._where_channel_exists(builder, channel, lane):
            for place, offset, value in placed:
                ptx.add_atomically(builder, place, value, offset)

    def _store_block(self, builder, row, name: str, number: int, values: list, channel, lane, scratch) -> None:
        """Store a block of the site's gradients, or add to what an earlier segment left there."""
        placed = self._placed(builder, row, name, number, values, channel, lane, scratch)
        with self._where_channel_exists(builder, channel, lane):
            for place, offset, value in placed:
                self._store(builder, builder.add(place, I64(offset)), (name, number, 0), value)

    def _placed(self, builder, row, name: str, number: int, values: list, channel, lane, scratch) -> list[tuple]:
        """(address, bytes beyond it, value) of the numbers that a lane writes of a block, values[i] being this lane's
        component i: its own or, where those of a channel lie together, those of which lanes write a run."""
        block, item = self.problem.row(name).blocks[number], self.problem.stored_bytes(name)
        first, step = builder.mul(lane, I32(block.channel_stride)), block.component_stride
        if self.segment.transposes(block):
            values = self._transposed(builder, values, lane, scratch)
            first, step = lane, LANES
        first = builder.add(builder.mul(channel, I32(block.channel_stride)), first)
        place = builder.add(row, builder.zext(builder.mul(first, I32(item)), I64))
        return [(place, (block.offset + i * step) * item, value) for i, value in enumerate(values)]

    def _transposed(self, builder, values: list, lane, scratch) -> list:
        """Of the run of all lanes' values, those of a lane together, the ones at places lane, lane + 32 and so on."""
        dim, item = len(values), self.problem.item_bytes

        def pointer(number):
            place = builder.add(scratch, builder.mul(number, I32(item)))
            return builder.inttoptr(place, ir.PointerType(self.scalar, SHARED))

        ptx.synchronize_warp(builder)
        for i, value in enumerate(values):
            builder.store(value, pointer(builder.add(builder.mul(lane, I32(dim)), I32(i))))
        ptx.synchronize_warp(builder)
        return [builder.load(pointer(builder.add(lane, I32(i * LANES)))) for i in range(dim)]

    def _scaled(self, builder, element, value):
        """A number of the owned node, times its block's scale."""
        scaled = base(element[0]) == self.problem.form[OUT]
        scale = self.segment.scales.get(element[1], 1.0) if scaled else 1.0
        return value if scale == 1.0 else builder.fmul(value, ir.Constant(self.scalar, float(scale)))

    def _tuple(self, context, builder, kind_, values):
        padded = [*values, *[ir.Constant(self.scalar, 0.0)] * (kind_.count - len(values))]
        return context.make_tuple(builder, kind_, padded)

    def _unpack(self, builder, value):
        return unpack_tuple(builder, value)
