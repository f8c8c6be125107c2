"""CUDA kernels of linear maps of features: all irreps in one launch, where they lie.

Small molecules wait for launches: matrix products, one for each irrep, would need as many copies to put a component's
rows side by side, and another one to put the results together. Here a block of threads takes a tile of one component,
nodes by channels.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import cuda
from numba.cuda import types
from numba.cuda.extending import intrinsic

from . import ptx
from .binary import Binary
from .body import SCALAR, Arithmetic
from .cuda_compile import assembly, machine_code
from .mixing import FORWARD, FOUR, TILE, TRANSPOSED, WEIGHTS
from .ptx import GLOBAL, I32, I64, SHARED
from .staging import LANES

i32, u32 = np.int32, np.uint32  # an index without sign does not count from the end

# A warp stages and multiplies pieces of both factors, 16 terms deep, and the warps of a block share out all terms:
# small molecules have few tiles. A thread computes 8 x 4 numbers of the tile.
DEPTH, ROWS, COLUMNS = 16, 8, 4
ACROSS, DOWN = TILE // COLUMNS, TILE // ROWS
# Staged rows, read and written four numbers at a time, begin in different banks of shared memory.
DEEP, WIDE = DEPTH + FOUR, TILE + FOUR
STAGE = 2 * TILE * DEEP  # numbers of a warp: no less than those of a tile, whose sums end there, too
READ_BYTES = 16  # of a thread at once, at most
# Of a block, whose stages fit the 48 kB that it has without asking. Gradients by weights sum over all nodes.
WARPS = {FORWARD: 4, TRANSPOSED: 4, WEIGHTS: 8}
WARPS_OF_DOUBLES = 4


class Parts:
    """What the kernels are written with, as numba intrinsics; each method's docstring is the documentation of the one
    that it makes.

    Pieces lie in shared memory in rows of terms, `DEEP` numbers apart ("deep"), or in rows of the tile, `WIDE` apart.

    Args:
        number: numba's type of the numbers.
        left_deep, right_deep: how pieces of the two factors lie.
    """

    def __init__(self, number, left_deep: bool, right_deep: bool):
        self.number, self.scalar, self.size = number, SCALAR[number.name], number.bitwidth // 8
        self.left_deep, self.right_deep = left_deep, right_deep
        self.vector = ir.VectorType(self.scalar, READ_BYTES // self.size)

    def fetch(self, deep: bool):
        """(numbers, begin, first, limit, step): the lane's 16 numbers of a piece, four each of the rows first, first +
        8 and so on (first + 4 if it is not deep), but of none beyond limit - 1. Rows begin `step` numbers apart."""
        rows, parts = LANES * FOUR // (DEPTH if deep else TILE), self

        @intrinsic
        def fetch(typingctx, numbers, begin, first, limit, step):
            def codegen(context, builder, signature, arguments):
                numbers, begin, first, limit, step = arguments
                last, found = builder.sub(limit, I32(1)), []
                for n in range(DEPTH // FOUR):
                    row = builder.add(first, I32(n * rows))
                    row = builder.select(builder.icmp_signed("<", row, last), row, last)
                    place = builder.add(begin, builder.sext(builder.mul(row, step), I64))
                    address = builder.ptrtoint(builder.gep(numbers, [place]), I64)
                    found += parts._four(builder, address, 0, GLOBAL)
                return parts._tuple(builder, found)

            return types.UniTuple(parts.number, DEPTH)(numbers, types.int64, *[types.int32] * 3), codegen

        return fetch

    def put(self, deep: bool):
        """(memory, place, fetched, first, limit): stages what was fetched, zeros in place of rows from `limit` on."""
        rows, parts = LANES * FOUR // (DEPTH if deep else TILE), self
        pitch = DEEP if deep else WIDE

        @intrinsic
        def put(typingctx, memory, place, fetched, first, limit):
            def codegen(context, builder, signature, arguments):
                memory, place, fetched, first, limit = arguments
                start = parts._address(context, builder, signature.args[0], memory, place)
                zero = ir.Constant(parts.scalar, 0.0)
                for n in range(DEPTH // FOUR):
                    kept = builder.icmp_signed("<", builder.add(first, I32(n * rows)), limit)
                    for m in range(0, FOUR, parts.vector.count):
                        packed = ir.Constant(parts.vector, ir.Undefined)
                        for k in range(parts.vector.count):
                            value = builder.select(kept, builder.extract_value(fetched, FOUR * n + m + k), zero)
                            packed = builder.insert_element(packed, value, I32(k))
                        address = builder.add(start, I32((n * rows * pitch + m) * parts.size))
                        pointer = builder.inttoptr(address, ir.PointerType(parts.vector, SHARED))
                        builder.store(packed, pointer, align=READ_BYTES)
                return context.get_dummy_value()

            return types.void(memory, types.int32, fetched, types.int32, types.int32), codegen

        return put

    def multiply(self):
        """(sums, memory, left, right, down, across): the thread's 8 x 4 sums, in a tuple, with the terms of the pieces
        staged at left and right. Their rows are 4 apart where left pieces are deep, from `down` on, or else 8 in
        succession; their columns 8 apart where right ones are, from `across` on, or else 4 in succession."""
        parts = self

        @intrinsic
        def multiply(typingctx, sums, memory, left, right, down, across):
            def codegen(context, builder, signature, arguments):
                sums, memory, left, right, down, across = arguments
                arithmetic = Arithmetic(builder, parts.number.name)
                left = builder.add(left, builder.mul(down, I32(DEEP if parts.left_deep else ROWS)))
                right = builder.add(right, builder.mul(across, I32(DEEP if parts.right_deep else COLUMNS)))
                left = parts._address(context, builder, signature.args[1], memory, left)
                right = parts._address(context, builder, signature.args[1], memory, right)
                totals = [builder.extract_value(sums, n) for n in range(ROWS * COLUMNS)]
                for begin in range(0, DEPTH, FOUR):
                    rows = parts._terms(builder, left, begin, ROWS, parts.left_deep, DOWN)
                    columns = parts._terms(builder, right, begin, COLUMNS, parts.right_deep, ACROSS)
                    for row, column in zip(rows, columns, strict=True):
                        for n in range(ROWS * COLUMNS):
                            totals[n] = arithmetic.fma(row[n // COLUMNS], column[n % COLUMNS], totals[n])
                return parts._tuple(builder, totals)

            return sums(sums, memory, *[types.int32] * 4), codegen

        return multiply

    def _terms(self, builder, address, begin: int, count: int, deep: bool, apart: int) -> list:
        """Of terms begin to begin + 3 the thread's `count` numbers each."""
        if deep:
            lines = [self._four(builder, address, apart * i * DEEP + begin, SHARED) for i in range(count)]
            return list(zip(*lines, strict=True))
        return [
            [value for part in range(0, count, FOUR) for value in self._four(builder, address, k * WIDE + part, SHARED)]
            for k in range(begin, begin + FOUR)
        ]

    def _four(self, builder, address, place: int, space: int) -> list:
        """The four numbers from this place on, at an address of 32 bits in shared and 64 in global memory."""
        numbers = []
        for part in range(place, place + FOUR, self.vector.count):
            offset = ir.Constant(address.type, part * self.size)
            pointer = builder.inttoptr(builder.add(address, offset), ir.PointerType(self.vector, space))
            read = builder.load(pointer, align=READ_BYTES)
            numbers += [builder.extract_element(read, I32(n)) for n in range(self.vector.count)]
        return numbers

    def _address(self, context, builder, kind, memory, place):
        start = ptx.shared_address(builder, context.make_array(kind)(context, builder, memory).data)
        return builder.add(start, builder.mul(place, I32(self.size)))

    def _tuple(self, builder, values):
        packed = ir.Constant(ir.ArrayType(self.scalar, len(values)), ir.Undefined)
        for n, value in enumerate(values):
            packed = builder.insert_value(packed, value, n)
        return packed


def mixing_kernel(number, warps: int, parts):
    """y[node, component, v] = factor * the sum over terms and u of x[node, component, u] * weight[u, v], or, where the
    `parts` say that right pieces are deep, of weight[v, u]; for numba.cuda. Grid: (tiles of nodes, tiles of the
    `Table`); block: (lanes, warps).
    """
    zero, size = number(0), warps * STAGE
    none, nothing = (zero,) * (ROWS * COLUMNS), (zero,) * DEPTH
    transposed, multiply = parts.right_deep, parts.multiply()
    fetch_left, put_left = parts.fetch(deep=True), parts.put(deep=True)
    fetch_right, put_right = parts.fetch(deep=transposed), parts.put(deep=transposed)

    def kernel(x, weights, y, tiles, terms, factors, nodes, x_length, y_length):
        memory = cuda.shared.array(size, number, alignment=READ_BYTES)
        lane, warp = i32(cuda.threadIdx.x), i32(cuda.threadIdx.y)
        across, down = lane % ACROSS, lane // ACROSS
        deep_row, deep_four = lane // (DEPTH // FOUR), lane % (DEPTH // FOUR) * FOUR
        wide_row, wide_four = lane // (TILE // FOUR), lane % (TILE // FOUR) * FOUR
        left, right = i32(warp * STAGE), i32(warp * STAGE + TILE * DEEP)
        left_place = i32(left + deep_row * DEEP + deep_four)
        right_place = i32(right + (deep_row * DEEP + deep_four if transposed else wide_row * WIDE + wide_four))

        tile = i32(cuda.blockIdx.y) * 8
        start, channels, term = tiles[tile], tiles[tile + 1], tiles[tile + 2]
        last, pitch = tiles[tile + 3], tiles[tile + 4]
        node = np.int64(cuda.blockIdx.x) * TILE
        nodes_left = i32(min(nodes - node, TILE))

        sums, depth, staged, limit = none, i32(warp * DEPTH), False, i32(0)
        next_left, next_right = nothing, nothing
        while True:
            while term < last and depth >= terms[3 * term + 1]:
                depth = i32(depth - (terms[3 * term + 1] + DEPTH - 1) // DEPTH * DEPTH)
                term += 1
            more = term < last
            if more:  # the next piece is under way while this one is multiplied; beyond an end it repeats what is there
                width, weight = terms[3 * term + 1], terms[3 * term + 2]
                limit = i32(TILE if depth + deep_four < width else 0)
                u = min(depth + deep_four, width - FOUR)
                begin = node * x_length + terms[3 * term] + u
                next_left = fetch_left(x, begin, deep_row, nodes_left, i32(x_length))
                if transposed:
                    next_right = fetch_right(weights, np.int64(weight + u), deep_row, channels, width)
                else:
                    begin = np.int64(weight + depth * pitch + min(wide_four, channels - FOUR))
                    next_right = fetch_right(weights, begin, wide_row, i32(width - depth), pitch)
                depth = i32(depth + warps * DEPTH)
            if staged:
                sums = multiply(sums, memory, left, right, down, across)
            if not more:
                break
            cuda.syncwarp()
            put_left(memory, left_place, next_left, i32(0), limit)
            put_right(memory, right_place, next_right, i32(0), i32(TILE))
            staged = True
            cuda.syncwarp()

        cuda.syncthreads()
        for i in range(ROWS):
            for j in range(COLUMNS):
                row, column = down + DOWN * i, across + ACROSS * j if transposed else COLUMNS * across + j
                memory[u32((warp * TILE + row) * WIDE + column)] = sums[COLUMNS * i + j]
        cuda.syncthreads()
        if lane < channels:
            factor, row = factors[i32(cuda.blockIdx.y)], warp
            while row < nodes_left:
                total = zero
                for other in range(warps):
                    total += memory[u32((other * TILE + row) * WIDE + lane)]
                y[(node + row) * y_length + start + lane] = number(factor * total)
                row += warps

    return kernel


def weight_gradient_kernel(number, warps: int, parts):
    """gradient[u, v] = factor * the sum over nodes and components of x[node, component, u] * g[node, component, v].
    Grid: tiles of the `Table`; block: (lanes, warps).
    """
    zero, size = number(0), warps * STAGE
    none, nothing = (zero,) * (ROWS * COLUMNS), (zero,) * DEPTH
    fetch, put, multiply = parts.fetch(deep=False), parts.put(deep=False), parts.multiply()

    def kernel(x, g, gradient, tiles, terms, factors, nodes, x_length, g_length):
        memory = cuda.shared.array(size, number, alignment=READ_BYTES)
        lane, warp = i32(cuda.threadIdx.x), i32(cuda.threadIdx.y)
        across, down = lane % ACROSS, lane // ACROSS
        first, four = lane // (TILE // FOUR), lane % (TILE // FOUR) * FOUR
        left, right = i32(warp * STAGE), i32(warp * STAGE + DEPTH * WIDE)
        left_place, right_place = i32(left + first * WIDE + four), i32(right + first * WIDE + four)

        tile = i32(cuda.blockIdx.x) * 8
        dim, weight = tiles[tile], tiles[tile + 7]
        x_start, x_channels, rows = tiles[tile + 1], tiles[tile + 2], tiles[tile + 3]
        g_start, g_channels, columns = tiles[tile + 4], tiles[tile + 5], tiles[tile + 6]
        x_start, g_start = x_start + min(four, rows - FOUR), g_start + min(four, columns - FOUR)

        pieces = i32((nodes + DEPTH - 1) // DEPTH) * dim
        piece, limit, sums, staged = warp, i32(0), none, False
        next_left, next_right = nothing, nothing
        while True:
            more = piece < pieces
            if more:
                group = piece // dim
                component, node = piece - group * dim, np.int64(group) * DEPTH
                limit = i32(min(nodes - node, DEPTH))
                x_begin = node * x_length + x_start + component * x_channels
                g_begin = node * g_length + g_start + component * g_channels
                next_left = fetch(x, x_begin, first, limit, i32(x_length))
                next_right = fetch(g, g_begin, first, limit, i32(g_length))
                piece = i32(piece + warps)
            if staged:
                sums = multiply(sums, memory, left, right, down, across)
            if not more:
                break
            cuda.syncwarp()
            put(memory, left_place, next_left, first, limit)
            put(memory, right_place, next_right, first, i32(TILE))
            staged = True
            cuda.syncwarp()

        cuda.syncthreads()
        for i in range(ROWS):
            for j in range(COLUMNS):
                memory[u32((warp * TILE + ROWS * down + i) * WIDE + COLUMNS * across + j)] = sums[COLUMNS * i + j]
        cuda.syncthreads()
        if lane < columns:
            factor, row = factors[i32(cuda.blockIdx.x)], warp
            while row < rows:
                total = zero
                for other in range(warps):
                    total += memory[u32((other * TILE + row) * WIDE + lane)]
                gradient[weight + row * g_channels + lane] = number(factor * total)
                row += warps

    return kernel


def compile_mixing(part: str, dtype: str, compute_capability: tuple[int, int]) -> Binary:
    """Machine code for "float32" or "float64" numbers; needs no GPU."""
    code = machine_code(mixing_assembly(part, dtype, compute_capability), compute_capability)
    return Binary(code, 1, (LANES, _warps(part, dtype), 1), 0)


def mixing_assembly(part: str, dtype: str, compute_capability: tuple[int, int]) -> str:
    """The kernel of this part as PTX."""
    number, warps = getattr(types, dtype), _warps(part, dtype)
    parts = Parts(number, left_deep=part != WEIGHTS, right_deep=part == TRANSPOSED)
    kernel = (weight_gradient_kernel if part == WEIGHTS else mixing_kernel)(number, warps, parts)
    numbers, integers = types.CPointer(number), types.CPointer(types.int32)
    arguments = [*[numbers] * 3, integers, integers, types.CPointer(types.float64), *[types.int64] * 3]
    return assembly(kernel, arguments, (LANES * warps, 1), compute_capability)


def _warps(part: str, dtype: str) -> int:
    return WARPS[part] if dtype == "float32" else WARPS_OF_DOUBLES
