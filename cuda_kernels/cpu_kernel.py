"""The CPU kernels: a thread owns a node, walks its edges and adds to the node's row; channels fill vector registers.

The same polynomial and the same arithmetic as on a GPU. Features with channels are component-major (ir_mul) here, so
that a vector register is filled by one load; the caller brings other layouts to it, once a node.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence

import llvmlite.binding as llvm
import numba
import numpy as np
from numba import types
from numba.core.compiler import CompileResult
from numba.core.extending import intrinsic

from . import cache
from .cpu_edge import INPUT, LATER, OUTPUT, Edge, vector_bytes
from .cpu_rows import I32, I64, write_row
from .polynomial import Contraction, kind
from .problem import Problem

EDGES_AHEAD = 4
"""How many edges before its turn a row of weights is fetched. With 2 to 6, a forward from memory takes a quarter less
time (nequip-aspirin of 64 molecules on two cores of an AMD EPYC: 4.1 to 2.7 ms)."""


def compile_kernel(problem: Problem, passes: Sequence[tuple[str, Contraction]]):
    """The compiled kernel of one or two passes.

    Args:
        passes: (owner, contraction): with owner "g" a thread owns a target node and walks its incoming edges, with "x"
            it owns a source node and walks its outgoing edges. Outputs of that kind are the rows that it owns.

    Returns:
        kernel(*operands, pieces): for each pass, and twice for a single one, its inputs, outputs, lists and number of
        rows. The first three are tuples of addresses (int), lists that of the int32 arrays first, edges and others. Row
        r has the list positions first[r] to first[r + 1], with edge number edges[p] and, at the other end, node
        others[p]. Writes the rows of its outputs, which begin at multiples of 64 bytes; the GIL is released.

    A thread walks a piece of the first pass's rows, then one of the second's. Where nodes have neighbours of about
    their own number, as in a batch of molecules, the two have edges in common, whose weights are then still in cache.
    """
    walks = [_walk(problem, contraction, owner) for owner, contraction in passes]
    walk, walk_again = walks if len(walks) == 2 else (*walks, _nothing)

    @numba.njit(parallel=True, nogil=True)
    def kernel(inputs, outputs, lists, rows, inputs_again, outputs_again, lists_again, rows_again, pieces):
        for piece in numba.prange(pieces):
            walk(inputs, outputs, lists, rows, piece, pieces)
            walk_again(inputs_again, outputs_again, lists_again, rows_again, piece, pieces)

    address = types.uint64
    counts = [(len(contraction.inputs), len(contraction.outputs), 3) for _, contraction in (passes[0], passes[-1])]
    operands = [[*(types.UniTuple(address, n) for n in count), types.int64] for count in counts]
    specs = [(owner, contraction.spec) for owner, contraction in passes]
    kernel._cache = _DiskCache(cache.key("cpu", problem.key, specs, _host()))
    kernel.compile(types.void(*operands[0], *operands[1], types.int64))
    kernel.disable_compile()
    return kernel


def _walk(problem: Problem, contraction: Contraction, owner: str):
    """walk(inputs, outputs, lists, rows, piece, pieces): one piece of the rows of a pass."""
    read_index, contract_edge, write_rows, finish_stores = _parts(problem, contraction, owner)
    number = np.dtype(problem.dtype)
    owned_numbers = problem.row(owner).length * sum(kind(output) == owner for output in contraction.outputs)

    @numba.njit(inline="always")  # compiled once, as part of the kernel
    def walk(inputs, outputs, lists, rows, piece, pieces):
        first, edges, others = lists
        last = read_index(first, rows) - 1
        for row in range(rows * piece // pieces, rows * (piece + 1) // pieces):
            sums = np.zeros(owned_numbers, number)
            for position in range(read_index(first, row), read_index(first, row + 1)):
                edge, other = read_index(edges, position), read_index(others, position)
                later_edge = read_index(edges, min(position + EDGES_AHEAD, last))
                contract_edge(inputs, outputs, sums, row, edge, other, later_edge)
            write_rows(outputs, sums, row)
        finish_stores()

    return walk


@numba.njit(inline="always")
def _nothing(inputs, outputs, lists, rows, piece, pieces):
    """In place of a second pass."""


def compile_transposition(problem: Problem, kind: str):
    """kernel(source, target, rows): copies rows of a kind from the problem's order to component-major; both are
    addresses."""
    length = problem.row(kind).length * problem.item_bytes

    @intrinsic
    def write_back(typingctx, source, target, row):
        def codegen(context, builder, signature, arguments):
            source, target, row = arguments
            offset = builder.mul(row, I64(length))
            places = builder.add(source, offset), builder.add(target, offset)
            write_row(builder, problem, kind, *places, vector_bytes() // problem.item_bytes, back=True)
            return context.get_dummy_value()

        return types.void(types.uint64, types.uint64, types.int64), codegen

    @numba.njit(parallel=True, nogil=True)
    def kernel(source, target, rows):
        for row in numba.prange(rows):
            write_back(source, target, row)

    kernel._cache = _DiskCache(cache.key("cpu transposition", problem.key, kind, _host()))
    kernel.compile(types.void(types.uint64, types.uint64, types.int64))
    kernel.disable_compile()
    return kernel


class _DiskCache:
    """numba's compilation cache, found by what the kernel was generated from instead of by its source file."""

    def __init__(self, name: str):
        self.name = name

    def load_overload(self, signature, target_context):
        target_context.refresh()
        stored = cache.load(self.name)
        return stored and CompileResult._rebuild(target_context, *pickle.loads(stored))

    def save_overload(self, signature, result):
        cache.store(self.name, pickle.dumps(result._reduce()))


def _host() -> tuple[str, str]:
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


def _parts(problem: Problem, contraction: Contraction, owner: str):
    """The intrinsics that the kernel is made of."""
    index = types.int64

    @intrinsic
    def read_index(typingctx, address, position):
        def codegen(context, builder, signature, arguments):
            base = builder.inttoptr(arguments[0], I32.as_pointer())
            return builder.sext(builder.load(builder.gep(base, [arguments[1]]), typ=I32), I64)

        return index(types.uint64, index), codegen

    compact, owned = problem.component_major(), [output for output in contraction.outputs if kind(output) == owner]

    def row_address(builder, base, operand: str, row, layout: Problem):
        return builder.add(base, builder.mul(row, I64(layout.row(kind(operand)).length * layout.item_bytes)))

    def sums_address(context, builder, signature, array, operand: str):
        start = context.make_array(signature)(context, builder, array).data
        return row_address(builder, builder.ptrtoint(start, I64), operand, I64(owned.index(operand)), compact)

    @intrinsic
    def contract_edge(typingctx, inputs, outputs, sums, owner_row, edge, other_row, later_edge):
        def codegen(context, builder, signature, arguments):
            inputs, outputs, sums, owner_row, edge, other_row, later_edge = arguments
            rows = {"y": edge, "w": edge, "g": other_row, "x": other_row} | {owner: owner_row}
            addresses = {}  # an operand may be an input and an output: its value, and the gradient with respect to it
            for n, operand in enumerate(contraction.inputs):
                shared = problem.shared_weights and kind(operand) == "w"
                row = I64(0) if shared else rows[kind(operand)]
                base = builder.extract_value(inputs, n)
                addresses[operand, INPUT] = row_address(builder, base, operand, row, compact)
                if kind(operand) == "w" and not shared:
                    addresses[operand, LATER] = row_address(builder, base, operand, later_edge, compact)
            for n, operand in enumerate(contraction.outputs):
                if operand in owned:
                    addresses[operand, OUTPUT] = sums_address(context, builder, signature.args[2], sums, operand)
                else:
                    base = builder.extract_value(outputs, n)
                    addresses[operand, OUTPUT] = row_address(builder, base, operand, rows[kind(operand)], compact)
            Edge(builder, compact, contraction, addresses).emit()
            return context.get_dummy_value()

        return types.void(inputs, outputs, sums, index, index, index, index), codegen

    @intrinsic
    def write_rows(typingctx, outputs, sums, row):
        def codegen(context, builder, signature, arguments):
            outputs, sums, row = arguments
            for operand in owned:
                base = builder.extract_value(outputs, contraction.outputs.index(operand))
                target = row_address(builder, base, operand, row, problem)
                source = sums_address(context, builder, signature.args[1], sums, operand)
                write_row(builder, problem, owner, source, target, vector_bytes() // problem.item_bytes)
            return context.get_dummy_value()

        return types.void(outputs, sums, index), codegen

    @intrinsic
    def finish_stores(typingctx):
        """Those that go past the caches are seen by other threads after this."""

        def codegen(context, builder, signature, arguments):
            builder.fence("seq_cst")
            return context.get_dummy_value()

        return types.void(), codegen

    return read_index, contract_edge, write_rows, finish_stores
