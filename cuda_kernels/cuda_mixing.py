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
from .body import Arithmetic
from .cuda_compile import assembly, machine_code
from .mixing import FORWARD, TILE, TRANSPOSED, WEIGHTS
from .ptx import I32, SHARED
from .staging import LANES

# A warp stages and multiplies pieces of both factors, 16 terms deep, and the warps of a block share out all terms:
# small molecules have few tiles. A thread computes 8 x 4 numbers of the tile.
DEPTH, ROWS, COLUMNS = 16, 8, 4
ACROSS, DOWN = TILE // COLUMNS, TILE // ROWS
DEEP, WIDE = DEPTH + 4, TILE + 4  # staged rows, read four numbers at a time, begin in different banks of shared memory
PIECE = DEPTH * WIDE
STAGE = TILE * DEEP + PIECE  # numbers of a warp: no less than those of a tile, whose sums end there, too
READ_BYTES = 16  # of a thread at once, at most
# Of a block, whose stages fit the 48 kB that it has without asking. Gradients by weights sum over all nodes.
WARPS = {FORWARD: 4, TRANSPOSED: 4, WEIGHTS: 8}
WARPS_OF_DOUBLES = 4


def multiply_of(number, by_columns: bool):
    """(sums, memory, left, right): the thread's 8 x 4 sums, in a tuple, with the terms of a staged piece.

    They are of rows ``down + 4 i`` of the left factor, the thread's first at ``left``, where a row begins every `DEEP`
    numbers; or, by columns, of columns ``8 down + i``, where a row begins every `WIDE` numbers. The four columns of the
    right factor are at ``right``, where a row begins every `WIDE` numbers.
    """

    @intrinsic
    def multiply(typingctx, sums, memory, left, right):
        def codegen(context, builder, signature, arguments):
            sums, memory, left, right = arguments
            arithmetic, size = Arithmetic(builder, number.name), number.bitwidth // 8
            data = context.make_array(signature.args[1])(context, builder, memory).data
            start = ptx.shared_address(builder, data)
            left, right = (builder.add(start, builder.mul(place, I32(size))) for place in (left, right))
            vector = ir.VectorType(arithmetic.scalar, READ_BYTES // size)

            def several(address, place, count):
                numbers = []
                for part in range(place, place + count, vector.count):
                    pointer = builder.add(address, I32(part * size))
                    read = builder.load(builder.inttoptr(pointer, ir.PointerType(vector, SHARED)), align=READ_BYTES)
                    numbers += [builder.extract_element(read, I32(n)) for n in range(vector.count)]
                return numbers

            totals = [builder.extract_value(sums, n) for n in range(ROWS * COLUMNS)]
            for begin in range(0, DEPTH, vector.count):
                if by_columns:
                    terms = [several(left, k * WIDE, ROWS) for k in range(begin, begin + vector.count)]
                else:
                    rows = [several(left, DOWN * i * DEEP + begin, vector.count) for i in range(ROWS)]
                    terms = zip(*rows, strict=True)
                for k, row in enumerate(terms, begin):
                    column = several(right, k * WIDE, COLUMNS)
                    for n in range(ROWS * COLUMNS):
                        totals[n] = arithmetic.fma(row[n // COLUMNS], column[n % COLUMNS], totals[n])
            for n, total in enumerate(totals):
                sums = builder.insert_value(sums, total, n)
            return sums

        return sums(sums, memory, types.int32, types.int32), codegen

    return multiply


u32 = np.uint32  # of an index: a signed one might count from the end


def mixing_kernel(number, warps: int, transposed: bool, multiply):
    """y[node, component, v] = factor * the sum over terms and u of x[node, component, u] * weight[u, v], or of
    weight[v, u] if transposed; for numba.cuda. Grid: (tiles of nodes, tiles of the `Table`); block: (lanes, warps).
    """
    zero = number(0)
    none, size = (zero,) * (ROWS * COLUMNS), warps * STAGE
    passes = np.int32(LANES // DEPTH)

    def kernel(x, weights, y, tiles, terms, factors, nodes, x_length, y_length):
        memory = cuda.shared.array(size, number, alignment=READ_BYTES)
        next_left = cuda.local.array(DEPTH, number)
        next_right = cuda.local.array(DEPTH, number)
        lane, warp = np.int32(cuda.threadIdx.x), np.int32(cuda.threadIdx.y)
        across, down = lane % ACROSS, lane // ACROSS
        deep, first = lane % DEPTH, lane // DEPTH  # which of the terms, and of the first rows, a lane stages
        left, right = warp * STAGE, warp * STAGE + TILE * DEEP

        tile = np.int32(cuda.blockIdx.y) * 8
        start, channels, term = tiles[tile], tiles[tile + 1], tiles[tile + 2]
        last, pitch = tiles[tile + 3], tiles[tile + 4]
        # Within a tile 32 bits hold all places: fewer registers.
        node = np.int64(cuda.blockIdx.x) * TILE
        nodes_left, x_begin, x_step = np.int32(min(nodes - node, TILE)), node * x_length, np.int32(x_length)

        sums, depth, staged, inside = none, warp * DEPTH, False, False
        while True:
            while term < last and depth >= terms[3 * term + 1]:
                depth -= (terms[3 * term + 1] + DEPTH - 1) // DEPTH * DEPTH
                term += 1
            more = term < last
            if more:  # the next piece is under way while this one is multiplied; beyond an end it repeats the last row
                width, weight = terms[3 * term + 1], terms[3 * term + 2]
                inside = depth + deep < width
                u = min(depth + deep, width - 1)
                place = terms[3 * term] + u
                for n in range(DEPTH):
                    row = first + n * passes
                    next_left[n] = x[x_begin + np.int32(min(row, nodes_left - 1) * x_step + place)]
                    if transposed:
                        next_right[n] = weights[weight + min(row, channels - 1) * width + u]
                    else:
                        next_right[n] = weights[weight + min(depth + n, width - 1) * pitch + min(lane, channels - 1)]
                depth += warps * DEPTH
            if staged:
                sums = multiply(sums, memory, np.int32(left + down * DEEP), np.int32(right + COLUMNS * across))
            if not more:
                break
            cuda.syncwarp()
            for n in range(DEPTH):
                row = first + n * passes
                memory[u32(left + row * DEEP + deep)] = next_left[n] if inside else zero
                if transposed:
                    memory[u32(right + deep * WIDE + row)] = next_right[n]
                else:
                    memory[u32(right + n * WIDE + lane)] = next_right[n]
            staged = True
            cuda.syncwarp()

        cuda.syncthreads()
        for i in range(ROWS):
            for j in range(COLUMNS):
                place = warp * TILE * WIDE + (down + DOWN * i) * WIDE + COLUMNS * across + j
                memory[u32(place)] = sums[COLUMNS * i + j]
        cuda.syncthreads()
        if lane < channels:
            factor, row = factors[np.int32(cuda.blockIdx.y)], warp
            while row < nodes_left:
                total = zero
                for other in range(warps):
                    total += memory[u32((other * TILE + row) * WIDE + lane)]
                y[(node + row) * y_length + start + lane] = number(factor * total)
                row += warps

    return kernel


def weight_gradient_kernel(number, warps: int, multiply):
    """gradient[u, v] = factor * the sum over nodes and components of x[node, component, u] * g[node, component, v].
    Grid: tiles of the `Table`; block: (lanes, warps).
    """
    zero = number(0)
    none, size = (zero,) * (ROWS * COLUMNS), warps * STAGE

    def kernel(x, g, gradient, tiles, terms, factors, nodes, x_length, g_length):
        memory = cuda.shared.array(size, number, alignment=READ_BYTES)
        next_left = cuda.local.array(DEPTH, number)
        next_right = cuda.local.array(DEPTH, number)
        lane, warp = np.int32(cuda.threadIdx.x), np.int32(cuda.threadIdx.y)
        across, down = lane % ACROSS, lane // ACROSS
        left, right = warp * STAGE, warp * STAGE + PIECE

        tile = np.int32(cuda.blockIdx.x) * 8
        dim, weight = tiles[tile], tiles[tile + 7]
        x_start, x_channels, rows = tiles[tile + 1], tiles[tile + 2], tiles[tile + 3]
        g_start, g_channels, columns = tiles[tile + 4], tiles[tile + 5], tiles[tile + 6]
        x_place, g_place = x_start + min(lane, rows - 1), g_start + min(lane, columns - 1)

        pieces = np.int32((nodes + DEPTH - 1) // DEPTH) * dim
        piece, nodes_left, sums, staged = warp, np.int32(0), none, False
        while True:
            more = piece < pieces
            if more:
                group = piece // dim
                component, node = piece - group * dim, np.int64(group) * DEPTH
                nodes_left = np.int32(min(nodes - node, DEPTH))
                x_begin = node * x_length + component * x_channels + x_place
                g_begin = node * g_length + component * g_channels + g_place
                for n in range(DEPTH):
                    k = min(np.int32(n), nodes_left - 1)
                    next_left[n] = x[x_begin + np.int32(k * np.int32(x_length))]
                    next_right[n] = g[g_begin + np.int32(k * np.int32(g_length))]
                piece += warps
            if staged:
                sums = multiply(sums, memory, np.int32(left + ROWS * down), np.int32(right + COLUMNS * across))
            if not more:
                break
            cuda.syncwarp()
            for n in range(DEPTH):
                memory[u32(left + n * WIDE + lane)] = next_left[n] if n < nodes_left else zero
                memory[u32(right + n * WIDE + lane)] = next_right[n]
            staged = True
            cuda.syncwarp()

        cuda.syncthreads()
        for i in range(ROWS):
            for j in range(COLUMNS):
                place = warp * TILE * WIDE + (ROWS * down + i) * WIDE + COLUMNS * across + j
                memory[u32(place)] = sums[COLUMNS * i + j]
        cuda.syncthreads()
        if lane < columns:
            factor, row = factors[np.int32(cuda.blockIdx.x)], warp
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
    multiply = multiply_of(number, by_columns=part == WEIGHTS)
    if part == WEIGHTS:
        kernel = weight_gradient_kernel(number, warps, multiply)
    else:
        kernel = mixing_kernel(number, warps, part == TRANSPOSED, multiply)
    numbers, integers = types.CPointer(number), types.CPointer(types.int32)
    arguments = [*[numbers] * 3, integers, integers, types.CPointer(types.float64), *[types.int64] * 3]
    return assembly(kernel, arguments, (LANES * warps, 1), compute_capability)


def _warps(part: str, dtype: str) -> int:
    return WARPS[part] if dtype == "float32" else WARPS_OF_DOUBLES
