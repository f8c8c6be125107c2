"""The straight-line parts of the CUDA kernel, generated for one segment as numba intrinsics that emit LLVM IR."""

from __future__ import annotations

from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import intrinsic

from ..body import Arithmetic
from ..polynomial import evaluate_path
from . import ptx
from .features import FeatureParts
from .ptx import I32, SHARED
from .staging import LANES


class Parts(FeatureParts):
    """What `kernel.kernel_of` is written with; each method's docstring is the documentation of the intrinsic that
    it makes.

    Addresses are uint64 in global and uint32 in shared memory; positions, nodes, edges, channels and lanes are uint32.
    """

    def stage_edge(self):
        """(stage, inputs, edge, far node, first channel, lane): start copying what this edge's contraction reads."""
        operands, segment = self.contraction.inputs, self.segment

        def is_read_again(name: str) -> bool:
            """By other warps: those of the row, or of other rows, whose nodes share neighbours."""
            return segment.is_feature(name) or (segment.is_far(name) and segment.rows > 1)

        @intrinsic
        def stage_edge(typingctx, stage, inputs, edge, far, channel, lane):
            def codegen(context, builder, signature, arguments):
                stage, inputs, edge, far, channel, lane = arguments
                starts = {}  # copies of one pattern differ by a constant, which costs no instruction
                for copy in self.segment.stage.copies:
                    if (copy.operand, copy.sources) not in starts:
                        base = builder.extract_value(inputs, operands.index(copy.operand))
                        row = self._row(builder, base, copy.operand, edge, far, as_input=True)
                        place = self._source(builder, copy.sources, channel, lane)
                        starts[copy.operand, copy.sources] = builder.add(row, place)
                    source = starts[copy.operand, copy.sources]
                    target = builder.add(stage, builder.add(builder.mul(lane, I32(copy.size)), I32(copy.target)))
                    wanted = self._channel_exists(builder, channel, lane) if copy.masked else None
                    if copy.lanes < LANES:
                        wanted = builder.icmp_unsigned("<", lane, I32(copy.lanes))
                    with builder.if_then(ir.IntType(1)(1) if wanted is None else wanted):
                        ptx.copy_async(builder, copy.size, target, source, copy.start, is_read_again(copy.operand))
                return context.get_dummy_value()

            return types.void(types.uint32, inputs, *[types.uint32] * 4), codegen

        return stage_edge

    def commit_copies(self):
        """(): the copies started since the last call form a group."""

        @intrinsic
        def commit_copies(typingctx):
            def codegen(context, builder, signature, arguments):
                ptx.commit_copies(builder)
                return context.get_dummy_value()

            return types.void(), codegen

        return commit_copies

    def wait_for_oldest(self):
        """(): the oldest group has arrived (for this lane: synchronise the warp before reading other lanes' copies)."""

        @intrinsic
        def wait_for_oldest(typingctx):
            def codegen(context, builder, signature, arguments):
                ptx.wait_copies(builder, self.segment.stages - 2)
                return context.get_dummy_value()

            return types.void(), codegen

        return wait_for_oldest

    def read_owned(self):
        """(inputs, row, first channel, lane, place) -> this lane's numbers of the owned node's rows, unless the
        schedule keeps them in shared memory: then they are put there, from `place` on."""
        operands, elements, in_shared = self.contraction.inputs, self.segment.owned_inputs, self.segment.in_shared

        @intrinsic
        def read_owned(typingctx, inputs, row, channel, lane, place):
            def codegen(context, builder, signature, arguments):
                inputs, row, channel, lane, kept = arguments
                values = []
                for element in elements:
                    place = self._node_place(builder, inputs, operands, element, row, channel, lane)
                    values.append(self._scaled(builder, element, self._load_global(builder, place, channel, lane)))
                    if in_shared:
                        builder.store(values[-1], self._kept_pointer(builder, kept, lane, element))
                return self._tuple(context, builder, self.owned_type, [] if in_shared else values)

            return self.owned_type(inputs, *[types.uint32] * 4), codegen

        return read_owned

    def zeros(self):
        """() -> sums of nothing."""

        @intrinsic
        def zeros(typingctx):
            def codegen(context, builder, signature, arguments):
                return self._tuple(context, builder, self.sums_type, [])

            return self.sums_type(), codegen

        return zeros

    def contract(self):
        """(sums, owned, place, stage, lane) -> (sums with this edge's share, this edge's gradients): the polynomial."""
        segment, result_type = self.segment, types.Tuple((self.sums_type, self.gradients_type))

        @intrinsic
        def contract(typingctx, sums, owned, place, stage, lane):
            def codegen(context, builder, signature, arguments):
                sums, owned, kept, stage, lane = arguments
                arithmetic = Arithmetic(builder, self.problem.dtype)
                owned_inputs = [] if segment.in_shared else segment.owned_inputs
                known = dict(zip(owned_inputs, self._unpack(builder, owned), strict=False))
                totals = dict(zip(segment.owned_outputs, self._unpack(builder, sums), strict=False))

                def read(element):
                    if segment.in_shared and segment.is_owned(element[0]):
                        return builder.load(self._kept_pointer(builder, kept, lane, element))
                    if element not in known:
                        offset, step = segment.stage.places[element]
                        place = (
                            builder.add(stage, I32(offset))
                            if step == 0
                            else builder.add(builder.add(stage, builder.mul(lane, I32(step))), I32(offset))
                        )
                        stored = self.problem.operand(element[0]).stored
                        loaded = builder.load(self._pointer(builder, place, stored, SHARED))
                        known[element] = ptx.widened(builder, loaded, stored)
                    return known[element]

                for path in segment.scaled_paths:
                    evaluate_path(path, self.contraction, read, totals, arithmetic)
                zero = ir.Constant(self.scalar, 0.0)
                parts = [
                    self._tuple(context, builder, kind_, [totals.get(element, zero) for element in elements])
                    for kind_, elements in (
                        (self.sums_type, segment.owned_outputs),
                        (self.gradients_type, segment.edge_outputs),
                    )
                ]
                return context.make_tuple(builder, result_type, parts)

            return result_type(self.sums_type, self.owned_type, *[types.uint32] * 3), codegen

        return contract

    def scatter(self):
        """(outputs, edge, far node, first channel, lane, scratch, gradients): store the gradients by the edge's rows,
        or add them to what an earlier segment stored; add those by the far node's."""
        operands, segment = self.contraction.outputs, self.segment

        @intrinsic
        def scatter(typingctx, outputs, edge, far, channel, lane, scratch, gradients):
            def codegen(context, builder, signature, arguments):
                outputs, edge, far, channel, lane, scratch, gradients = arguments
                values = dict(zip(segment.edge_outputs, self._unpack(builder, gradients), strict=False))
                rows = {
                    name: self._row(builder, builder.extract_value(outputs, n), name, edge, far)
                    for n, name in enumerate(operands)
                    if segment.is_stored(name) or segment.is_far(name)
                }
                for name, row in rows.items():
                    write = self._add_block if segment.is_far(name) else self._store_block
                    for number in segment.blocks(name):
                        dim = self.problem.row(name).blocks[number].dim
                        column = [values[name, number, i] for i in range(dim)]
                        write(builder, row, name, number, column, channel, lane, scratch)
                return context.get_dummy_value()

            return types.void(outputs, *[types.uint32] * 5, self.gradients_type), codegen

        return scatter

    def write_owned(self):
        """(outputs, row, first channel, lane, sums): the owned node's rows, or what an earlier segment wrote plus the
        sums."""
        operands, elements = self.contraction.outputs, self.segment.owned_outputs

        @intrinsic
        def write_owned(typingctx, outputs, row, channel, lane, sums):
            def codegen(context, builder, signature, arguments):
                outputs, row, channel, lane, sums = arguments
                with self._where_channel_exists(builder, channel, lane):
                    for element, value in zip(elements, self._unpack(builder, sums), strict=False):
                        place = self._node_place(builder, outputs, operands, element, row, channel, lane)
                        self._store(builder, place, element, self._scaled(builder, element, value))
                return context.get_dummy_value()

            return types.void(outputs, *[types.uint32] * 3, self.sums_type), codegen

        return write_owned
