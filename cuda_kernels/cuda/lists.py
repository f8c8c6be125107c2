"""The parts that all kernels which walk over sites have in common."""

from __future__ import annotations

from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import intrinsic

from ..problem import Problem
from . import ptx
from .ptx import GLOBAL, I32, I64


class Lists:
    """Intrinsics that read which sites to walk; each method's docstring is the documentation of its own."""

    def __init__(self, problem: Problem):
        self.problem = problem

    def read_index(self):
        """(list, position) -> the int32 there; without a graph, where every list counts up from 0, the position."""

        @intrinsic
        def read_index(typingctx, address, position):
            def codegen(context, builder, signature, arguments):
                return self._site(builder, *arguments)

            return types.uint32(types.uint64, types.uint32), codegen

        return read_index

    def read_start(self):
        """(starts, row, nodes) -> the row's first position; without a graph, rows have `starts` positions each."""
        graph = self.problem.has_graph

        @intrinsic
        def read_start(typingctx, starts, row, nodes):
            def codegen(context, builder, signature, arguments):
                starts, row, nodes = arguments
                if graph:
                    return _index(builder, starts, row)
                start = builder.mul(builder.trunc(starts, I32), row)
                return builder.select(builder.icmp_unsigned("<", start, nodes), start, nodes)

            return types.uint32(types.uint64, types.uint32, types.uint32), codegen

        return read_start

    def shared_address(self):
        """(shared array) -> its address."""

        @intrinsic
        def shared_address(typingctx, array):
            def codegen(context, builder, signature, arguments):
                data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
                return ptx.shared_address(builder, data)

            return types.uint32(array), codegen

        return shared_address

    def _site(self, builder, address, position):
        return _index(builder, address, position) if self.problem.has_graph else position


def _index(builder, address, position):
    place = builder.add(address, builder.zext(builder.shl(position, I32(2)), I64))
    return builder.load(builder.inttoptr(place, ir.PointerType(I32, GLOBAL)))
