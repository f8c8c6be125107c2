"""The CPU kernels: a thread owns a node, walks its edges and adds to the node's row; channels fill vector registers.

The same polynomial and the same arithmetic as on a GPU. Features with channels are component-major (ir_mul) here, so
that a vector register is filled by one load; the caller brings other layouts to it, once a node.
"""

from __future__ import annotations

import pickle

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.compiler import CompileResult
from numba.core.extending import intrinsic

from . import cache
from .body import SCALAR, Arithmetic, declare, suffix
from .cpu_rows import I32, I64, loop, write_row
from .polynomial import Contraction, evaluate_path, kind, matrices
from .problem import ITEM_BYTES, Path, Problem


def compile_kernel(problem: Problem, contraction: Contraction, owner: str):
    """The compiled kernel of one pass.

    Args:
        owner: "g" if a thread owns a target node and walks its incoming edges, "x" if it owns a source node and walks
            its outgoing edges. Outputs of that kind are the rows that it owns.

    Returns:
        kernel(inputs, outputs, first, edges, others, rows): tuples of addresses (int) of the contraction's inputs and
        outputs, and addresses of int32 arrays: row r has the list positions first[r] to first[r + 1], with edge number
        edges[p] and, at the other end, node others[p]. Writes the rows of its outputs; the GIL is released.
    """
    inputs, outputs = contraction.inputs, contraction.outputs
    read_index, contract_edge, write_rows = _parts(problem, contraction, owner)
    number = np.dtype(problem.dtype)
    owned_numbers = problem.row(owner).length * sum(kind(output) == owner for output in outputs)

    @numba.njit(parallel=True, nogil=True)
    def kernel(inputs, outputs, first, edges, others, rows):
        for row in numba.prange(rows):
            sums = np.zeros(owned_numbers, number)
            for position in range(read_index(first, row), read_index(first, row + 1)):
                contract_edge(inputs, outputs, sums, row, read_index(edges, position), read_index(others, position))
            write_rows(outputs, sums, row)

    address = types.uint64
    signature = types.void(
        types.UniTuple(address, len(inputs)),
        types.UniTuple(address, len(outputs)),
        address,
        address,
        address,
        types.int64,
    )
    kernel._cache = _DiskCache(cache.key("cpu", problem.key, contraction.spec, owner, _host()))
    kernel.compile(signature)
    kernel.disable_compile()
    return kernel


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


def vector_bytes() -> int:
    """Bytes of a vector register of this processor: 64 with AVX-512, 32 with AVX, otherwise 16."""
    features = llvm.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx") else 16


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
    def contract_edge(typingctx, inputs, outputs, sums, owner_row, edge, other_row):
        def codegen(context, builder, signature, arguments):
            inputs, outputs, sums, owner_row, edge, other_row = arguments
            rows = {"y": edge, "w": edge, "g": other_row, "x": other_row} | {owner: owner_row}
            addresses = {}  # an operand may be an input and an output: its value, and the gradient with respect to it
            for n, operand in enumerate(contraction.inputs):
                shared = problem.shared_weights and kind(operand) == "w"
                row = I64(0) if shared else rows[kind(operand)]
                base = builder.extract_value(inputs, n)
                addresses[operand, False] = row_address(builder, base, operand, row, compact)
            for n, operand in enumerate(contraction.outputs):
                if operand in owned:
                    addresses[operand, True] = sums_address(context, builder, signature.args[2], sums, operand)
                else:
                    base = builder.extract_value(outputs, n)
                    addresses[operand, True] = row_address(builder, base, operand, rows[kind(operand)], compact)
            _Edge(builder, compact, contraction, addresses).emit()
            return context.get_dummy_value()

        return types.void(inputs, outputs, sums, index, index, index), codegen

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

    return read_index, contract_edge, write_rows


class _Edge:
    """Emits one edge: for each path its matrix of the edge features, then a loop over channels; then what they sum to.

    A path at a time, because then its matrix stays in vector registers throughout the loop.
    """

    def __init__(self, builder: ir.IRBuilder, problem: Problem, contraction: Contraction, addresses: dict):
        self.builder, self.problem, self.contraction, self.addresses = builder, problem, contraction, addresses
        self.scalar = SCALAR[problem.dtype]
        self.arithmetic = Arithmetic(builder, problem.dtype)
        self.max_width = vector_bytes() // ITEM_BYTES[problem.dtype]

    def emit(self) -> None:
        edge_features: dict = {}

        def read(element):
            if element not in edge_features:
                edge_features[element] = self.builder.load(self.pointer(element, I64(0)), typ=self.scalar)
            return edge_features[element]

        gradients: dict = {}
        for path in self.problem.paths:
            self.channels(path, matrices(path, self.contraction, read, self.arithmetic), gradients)
        for operand in self.contraction.outputs:
            if kind(operand) == "y":
                for block, shape in enumerate(self.problem.y.blocks):
                    for j in range(shape.dim):
                        value = gradients.get((operand, block, j), ir.Constant(self.scalar, 0.0))
                        self.builder.store(value, self.pointer((operand, block, j), I64(0), output=True))

    def channels(self, path: Path, matrix: dict, gradients: dict) -> None:
        """One path: a loop over full vectors, then one vector for the rest."""
        multiplicity = self.problem.multiplicity(path)
        width = min(self.max_width, 1 << (multiplicity - 1).bit_length())
        full = multiplicity // width * width
        if full:
            totals = self.accumulators(path, width)
            with loop(self.builder, full, width) as channel:
                self.vector(path, matrix, channel, width, width, totals)
            self.reduce(totals, gradients)
        if rest := multiplicity - full:
            width = 1 << (rest - 1).bit_length()
            totals = self.accumulators(path, width)
            self.vector(path, matrix, I64(full), width, rest, totals)
            self.reduce(totals, gradients)

    def vector(self, path: Path, matrix: dict, channel, width: int, used: int, totals: dict) -> None:
        """`used` channels from `channel` on, in vectors of `width`."""
        values: dict = {}

        def read(element):
            if element not in values:
                values[element] = self.load(element, channel, width, used)
            return values[element]

        sums = _Sums(self, channel, width, used, totals)
        evaluate_path(path, self.contraction, read, sums, self.arithmetic, matrix)
        sums.write()

    def accumulators(self, path: Path, width: int) -> dict:
        """Zeroed vectors, one for each component of the edge features' gradients, that live across the channels."""
        vector = ir.VectorType(self.scalar, width)
        components = {j for _, j, _, _ in path.coefficients}
        elements = {(o, path.y, j) for o in self.contraction.outputs if kind(o) == "y" for j in components}
        with self.builder.goto_entry_block():
            slots = {element: self.builder.alloca(vector) for element in sorted(elements)}
        for slot in slots.values():
            self.builder.store(ir.Constant(vector, None), slot)
        return slots

    def reduce(self, totals: dict, gradients: dict) -> None:
        for element, slot in totals.items():
            vector = self.builder.load(slot, typ=slot.allocated_type)
            name = f"llvm.vector.reduce.fadd.{suffix(vector.type)}"
            add = declare(self.builder.module, name, self.scalar, [self.scalar, vector.type])
            before = gradients.get(element, ir.Constant(self.scalar, 0.0))
            gradients[element] = self.builder.call(add, [before, vector], fastmath=("reassoc",))

    def pointer(self, element, channel, output: bool = False):
        operand, block, component = element
        shape = self.problem.row(kind(operand)).blocks[block]
        number = self.builder.add(
            self.builder.mul(channel, I64(shape.channel_stride)), I64(shape.offset + component * shape.component_stride)
        )
        address = self.builder.add(
            self.addresses[operand, output], self.builder.mul(number, I64(self.problem.item_bytes))
        )
        return self.builder.inttoptr(address, self.scalar.as_pointer())

    def load(self, element, channel, width: int, used: int, output: bool = False):
        """A vector of `width` channels of which `used` exist; the others are zero."""
        return self.transfer(element, channel, width, used, None, output)

    def transfer(self, element, channel, width, used, value, output):
        """Load the element's channels, or store `value` to them."""
        builder, vector = self.builder, ir.VectorType(self.scalar, width)
        stride = self.problem.row(kind(element[0])).blocks[element[1]].channel_stride
        pointer = self.pointer(element, channel, output)
        size = self.problem.item_bytes
        if stride == 1 and used == width:
            pointer = builder.bitcast(pointer, vector.as_pointer())
            return (
                builder.load(pointer, align=size, typ=vector)
                if value is None
                else builder.store(value, pointer, align=size)
            )
        places = [builder.gep(pointer, [I64(n * stride)], source_etype=self.scalar) for n in range(used)]
        if value is not None:
            for n, place in enumerate(places):
                builder.store(builder.extract_element(value, I32(n)), place)
            return None
        result = ir.Constant(vector, None)
        for n, place in enumerate(places):
            result = builder.insert_element(result, builder.load(place, typ=self.scalar), I32(n))
        return result


class _Sums(dict):
    """The sums of one path: rows that the thread owns and edge-feature gradients go on from what is there."""

    def __init__(self, edge: _Edge, channel, width: int, used: int, totals: dict):
        super().__init__()
        self.edge, self.place, self.totals = edge, (channel, width, used), totals

    def get(self, element, default=None):
        if element not in self and kind(element[0]) != "w":
            slot = self.totals.get(element)
            if slot is not None:
                self[element] = self.edge.builder.load(slot, typ=slot.allocated_type)
            else:
                self[element] = self.edge.load(element, *self.place, output=True)
        return super().get(element, default)

    def write(self) -> None:
        for element, value in self.items():
            if element in self.totals:
                self.edge.builder.store(value, self.totals[element])
            else:
                self.edge.transfer(element, *self.place, value, True)
