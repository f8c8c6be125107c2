"""The straight-line parts of the CPU kernels, generated for one pass as numba intrinsics that emit LLVM IR."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate

from llvmlite import ir
from numba import types
from numba.core.extending import intrinsic

from ..body import declare
from ..passes import Pass
from ..problem import ITEM_BYTES, Channels, Index, Problem, Row
from .edge import INPUT, LATER, OUTPUT, Edge, vector_bytes
from .maps import Maps
from .rows import I32, I64, POINTER, write_row

INDEX = types.int64


class Parts:
    """What `kernel.compile_kernel` is written with; each method's docstring is the documentation of the intrinsic that
    it makes. Addresses are uint64.

    Gradients that several paths or edges add to are summed in a small buffer, component-major: those by the owner's
    rows for all its edges, those by an edge's rows for one edge.
    """

    def __init__(self, problem: Problem, walk: Pass):
        self.problem, self.contraction, self.by = problem, walk.contraction, walk.by
        self.compact = problem.component_major()
        outputs = walk.contraction.outputs
        owned = [name for name in outputs if problem.has_graph and problem.operand(name).index is walk.by]
        edge = [name for name in outputs if name not in owned and self._is_summed_on_an_edge(name)]
        self.owned, self.owned_numbers = self._places(owned)
        self.edge, self.edge_numbers = self._places(edge)

    def _is_summed_on_an_edge(self, name: str) -> bool:
        operand = self.problem.operand(name)
        has_edges_row = operand.index in (Index.EDGE, Index.ONE) and operand.channels is Channels.EACH
        return has_edges_row and (self.problem.is_summed(name) or operand.row != self.compact.row(name))

    def _places(self, names: Iterable[str]) -> tuple[dict[str, int], int]:
        """Where each operand's row begins in a buffer, and the numbers of them all."""
        names = list(names)
        *starts, total = accumulate((self.problem.row(name).length for name in names), initial=0)
        return dict(zip(names, starts, strict=True)), total

    def read_index(self):
        """(list, position) -> the int32 there."""

        @intrinsic
        def read_index(typingctx, address, position):
            def codegen(context, builder, signature, arguments):
                start = builder.inttoptr(arguments[0], I32.as_pointer())
                return builder.sext(builder.load(builder.gep(start, [arguments[1]]), typ=I32), I64)

            return INDEX(types.uint64, INDEX), codegen

        return read_index

    def contract_edge(self):
        """(inputs, outputs, owner's sums, edge's sums, owner, edge, other node, later edge): the edge's share of all
        outputs; starts to fetch what the later edge reads."""

        @intrinsic
        def contract_edge(typingctx, inputs, outputs, sums, edge_sums, owner, edge, other, later_edge):
            def codegen(context, builder, signature, arguments):
                inputs, outputs, sums, edge_sums, owner, edge, other, later_edge = arguments
                buffers = [
                    self._buffer(context, builder, array, value)
                    for array, value in zip(signature.args[2:4], (sums, edge_sums), strict=True)
                ]
                rows = {Index.EDGE: edge, Index.TARGET: other, Index.SOURCE: other} | {self.by: owner}
                addresses = self._inputs(builder, inputs, rows, later_edge) | self._outputs(
                    builder, outputs, rows, *buffers
                )
                for name in self.edge:
                    self._clear(builder, addresses[name, OUTPUT], name)
                kept = self.owned | self.edge
                emitter = Maps if self.problem.has_maps else Edge
                emitter(builder, self.compact, self.contraction, addresses, kept.__contains__).emit()
                for name in self.edge:
                    target = self._row(builder, self._output(builder, outputs, name), name, edge)
                    self._write(builder, name, addresses[name, OUTPUT], target)
                return context.get_dummy_value()

            return types.void(inputs, outputs, sums, edge_sums, *[INDEX] * 4), codegen

        return contract_edge

    def write_rows(self):
        """(outputs, owner's sums, owner): the sums in the order of the outputs' rows."""

        @intrinsic
        def write_rows(typingctx, outputs, sums, row):
            def codegen(context, builder, signature, arguments):
                outputs, sums, row = arguments
                buffer = self._buffer(context, builder, signature.args[1], sums)
                for name, start in self.owned.items():
                    target = self._row(builder, self._output(builder, outputs, name), name, row)
                    self._write(builder, name, self._number(builder, buffer, start), target)
                return context.get_dummy_value()

            return types.void(outputs, sums, INDEX), codegen

        return write_rows

    def finish_stores(self):
        """(): those that went past the caches are seen by other threads after this."""

        @intrinsic
        def finish_stores(typingctx):
            def codegen(context, builder, signature, arguments):
                builder.fence("seq_cst")
                return context.get_dummy_value()

            return types.void(), codegen

        return finish_stores

    @staticmethod
    def write_back(dtype: str, compact: Row, given: Row):
        """(source, target, row): the row from the given order to component-major, which is `compact`."""
        length = given.length * ITEM_BYTES[dtype]

        @intrinsic
        def write_back(typingctx, source, target, row):
            def codegen(context, builder, signature, arguments):
                source, target, row = arguments
                offset = builder.mul(row, I64(length))
                places = builder.add(source, offset), builder.add(target, offset)
                write_row(builder, dtype, compact, given, *places, vector_bytes() // ITEM_BYTES[dtype], back=True)
                return context.get_dummy_value()

            return types.void(types.uint64, types.uint64, INDEX), codegen

        return write_back

    def _inputs(self, builder, inputs, rows: dict, later_edge) -> dict:
        addresses = {}
        for n, name in enumerate(self.contraction.inputs):
            operand, start = self.problem.operand(name), builder.extract_value(inputs, n)
            row = I64(0) if operand.index is Index.ONE else rows[operand.index]
            addresses[name, INPUT] = self._row(builder, start, name, row)
            if operand.index is Index.EDGE and operand.channels is Channels.EACH:
                addresses[name, LATER] = self._row(builder, start, name, later_edge)
        return addresses

    def _outputs(self, builder, outputs, rows: dict, sums, edge_sums) -> dict:
        """An operand may be an input and an output: its value, and the gradient by it."""
        addresses = {}
        for name in self.contraction.outputs:
            if name in self.owned:
                address = self._number(builder, sums, self.owned[name])
            elif name in self.edge:
                address = self._number(builder, edge_sums, self.edge[name])
            else:
                index = self.problem.operand(name).index
                row = rows[Index.EDGE if index is Index.ONE else index]
                address = self._row(builder, self._output(builder, outputs, name), name, row)
            addresses[name, OUTPUT] = address
        return addresses

    def _output(self, builder, outputs, name: str):
        return builder.extract_value(outputs, self.contraction.outputs.index(name))

    def _row(self, builder, start, name: str, row):
        return builder.add(start, builder.mul(row, I64(self.problem.row(name).length * self.problem.item_bytes)))

    def _number(self, builder, start, number: int):
        return builder.add(start, I64(number * self.problem.item_bytes))

    def _buffer(self, context, builder, kind, array):
        return builder.ptrtoint(context.make_array(kind)(context, builder, array).data, I64)

    def _clear(self, builder, address, name: str) -> None:
        flag, byte = ir.IntType(1), ir.IntType(8)
        clear = declare(builder.module, "llvm.memset.p0.i64", ir.VoidType(), [POINTER, byte, I64, flag])
        size = I64(self.problem.row(name).length * self.problem.item_bytes)
        builder.call(clear, [builder.inttoptr(address, POINTER), byte(0), size, flag(0)])

    def _write(self, builder, name: str, source, target) -> None:
        rows, width = (self.compact.row(name), self.problem.row(name)), vector_bytes() // self.problem.item_bytes
        write_row(builder, self.problem.dtype, *rows, source, target, width)
