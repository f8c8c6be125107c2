"""The parts of the CUDA kernel for gradients of edge features, which are sums over all channels of an edge.

A warp sums over its channels and keeps the sums of a batch of edges in shared memory; then the block's threads sum over
its warps and write.
"""

from __future__ import annotations

from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import intrinsic

from . import ptx, warp_sum
from .ptx import GLOBAL, I32, I64, SHARED
from .rows import Rows


class FeatureParts(Rows):
    """Each method's docstring is the documentation of the intrinsic that it makes."""

    def keep_feature_sums(self):
        """(batch, slot, warp, first channel, lane, scratch, gradients): the gradients of this edge's features, summed
        over the warp's channels, go to the slot of a batch of edges in shared memory."""
        segment, item = self.segment, self.problem.item_bytes

        @intrinsic
        def keep_feature_sums(typingctx, batch, slot, warp, channel, lane, scratch, gradients):
            def codegen(context, builder, signature, arguments):
                batch, slot, warp, channel, lane, scratch, gradients = arguments
                values = dict(zip(segment.edge_outputs, self._unpack(builder, gradients), strict=False))
                zero = ir.Constant(self.scalar, 0.0)
                listed = [values[element] if element else zero for element in segment.feature_elements]
                if segment.masked:
                    exists = self._channel_exists(builder, channel, lane)
                    listed = [builder.select(exists, value, zero) for value in listed]
                number = builder.add(builder.mul(slot, I32(segment.warps)), warp)
                place = builder.add(batch, builder.mul(number, I32(segment.features * item)))
                warp_sum.store_sums(builder, listed, lane, scratch, place, item)
                return context.get_dummy_value()

            return types.void(*[types.uint32] * 6, self.gradients_type), codegen

        return keep_feature_sums

    def feature_sum(self):
        """(batch, slot, feature) -> the sum over the block's warps."""
        segment, item = self.segment, self.problem.item_bytes

        @intrinsic
        def feature_sum(typingctx, batch, slot, feature):
            def codegen(context, builder, signature, arguments):
                batch, slot, feature = arguments
                number = builder.add(builder.mul(slot, I32(segment.warps * segment.features)), feature)
                place = builder.add(batch, builder.mul(number, I32(item)))
                total = None
                for warp in range(segment.warps):
                    at = builder.add(place, I32(warp * segment.features * item))
                    value = builder.load(builder.inttoptr(at, ir.PointerType(self.scalar, SHARED)))
                    total = builder.fadd(total, value) if warp else value
                return total

            return self.number(*[types.uint32] * 3), codegen

        return feature_sum

    def write_feature(self):
        """(outputs, edge, feature, value, again): write the gradient of an edge feature, or add to it if this is not
        the first segment or round of channels to do so."""
        operands, segment, problem = self.contraction.outputs, self.segment, self.problem

        @intrinsic
        def write_feature(typingctx, outputs, edge, feature, value, again):
            def codegen(context, builder, signature, arguments):
                outputs, edge, feature, value, again = arguments
                place = None
                for start, (operand, first) in segment.feature_starts.items():
                    base = builder.extract_value(outputs, operands.index(operand))
                    item, stored = problem.stored_bytes(operand), problem.operand(operand).stored  # the same for all
                    number = builder.zext(builder.sub(feature, I32(start)), I64)
                    row = builder.add(self._row(builder, base, operand, edge, edge), I64(first * item))
                    at = builder.add(row, builder.mul(number, I64(item)))
                    after = builder.icmp_unsigned(">=", feature, I32(start))
                    place = at if place is None else builder.select(after, at, place)
                pointer = self._pointer(builder, place, stored, GLOBAL)
                old = self._load_if(builder, pointer, again) if segment.first else builder.load(pointer)
                total = builder.fadd(ptx.widened(builder, old, stored), value)
                builder.store(ptx.narrowed(builder, total, stored), pointer)
                return context.get_dummy_value()

            return types.void(outputs, types.uint32, types.uint32, self.number, types.boolean), codegen

        return write_feature
