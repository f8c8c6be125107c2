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
from .mixing import TILE, TRANSPOSED, WEIGHTS
from .ptx import I32, SHARED
from .staging import LANES

# A warp stages and multiplies pieces of both factors, 16 terms deep, and the warps of a block share out all terms:
# small molecules have few tiles. A thread computes 8 x 4 numbers of the tile.
DEPTH, ROWS, COLUMNS = 16, 8, 4
ACROSS, DOWN = TILE // COLUMNS, TILE // ROWS
DEEP, WIDE = DEPTH + 4, TILE + 4  # staged rows, read four numbers at a time, begin in different banks of shared memory
PIECE = DEPTH * WIDE
STAGE = TILE * DEEP + PIECE  # numbers of a warp: no less than those of a tile, which end there, too
READ_BYTES = 16  # of a thread at once, at most
BLOCKS = 2  # that a multiprocessor shall hold: more warps to wait for memory
WARPS = {"float32": 8, "float64": 4}  # as their stages fit the 48 kB that a block has without asking


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
    weight[v, u] if transposed; for numba.cuda. Grid: a block for each tile of `Table.blocks`; block: (lanes, warps).
    """
    zero = number(0)
    none, size = (zero,) * (ROWS * COLUMNS), warps * STAGE
    passes = np.int32(LANES // DEPTH)

    def kernel(x, weights, y, groups, terms, factors, nodes, x_length, y_length):
        memory = cuda.shared.array(size, number)
        next_left = cuda.local.array(DEPTH, number)
        next_right = cuda.local.array(DEPTH, number)
        lane, warp = np.int32(cuda.threadIdx.x), np.int32(cuda.threadIdx.y)
        across, down = lane % ACROSS, lane // ACROSS
        deep, first = lane % DEPTH, lane // DEPTH  # which of the terms, and of the first rows, a lane stages
        left, right = warp * STAGE, warp * STAGE + TILE * DEEP

        tile, group, node_tiles = np.int32(cuda.blockIdx.x), np.int32(0), (nodes + TILE - 1) // TILE
        tiles = np.int32(0)
        while tile >= tiles:
            tile -= tiles
            start, dim, channels = groups[5 * group], groups[5 * group + 1], groups[5 * group + 2]
            term, last = groups[5 * group + 3], groups[5 * group + 3] + groups[5 * group + 4]
            factor = factors[group]
            channel_tiles = (channels + TILE - 1) // TILE
            tiles = dim * node_tiles * channel_tiles
            group += 1
        component = tile // (node_tiles * channel_tiles)
        tile -= component * node_tiles * channel_tiles
        node, channel = tile // channel_tiles * TILE, tile % channel_tiles * TILE
        # Within a tile 32 bits hold all places: fewer registers.
        x_begin, x_step = np.int64(node) * x_length, np.int32(x_length)
        nodes_left, channels_left = np.int32(min(nodes - node, TILE)), np.int32(min(channels - channel, TILE))

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
                place = terms[3 * term] + component * width + u
                for n in range(DEPTH):
                    row = first + n * passes
                    next_left[n] = x[x_begin + np.int32(min(row, nodes_left - 1) * x_step + place)]
                    if transposed:
                        next_right[n] = weights[weight + (channel + min(row, channels_left - 1)) * width + u]
                    else:
                        above = min(depth + n, width - 1)
                        next_right[n] = weights[weight + above * channels + channel + min(lane, channels_left - 1)]
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
                memory[warp * TILE * TILE + (down + DOWN * i) * TILE + COLUMNS * across + j] = sums[COLUMNS * i + j]
        cuda.syncthreads()
        row = warp
        while row < TILE:
            if node + row < nodes and channel + lane < channels:
                total = zero
                for other in range(warps):
                    total += memory[other * TILE * TILE + row * TILE + lane]
                y[np.int64(node + row) * y_length + start + component * channels + channel + lane] = number(
                    factor * total
                )
            row += warps

    return kernel


def weight_gradient_kernel(number, warps: int, multiply):
    """gradient[u, v] = factor * the sum over nodes and components of x[node, component, u] * g[node, component, v].
    Grid: a block for each tile of `Table.blocks`; block: (lanes, warps).
    """
    zero = number(0)
    none, size = (zero,) * (ROWS * COLUMNS), warps * STAGE

    def kernel(x, g, gradient, groups, terms, factors, nodes, x_length, g_length):
        memory = cuda.shared.array(size, number)
        next_left = cuda.local.array(DEPTH, number)
        next_right = cuda.local.array(DEPTH, number)
        lane, warp = np.int32(cuda.threadIdx.x), np.int32(cuda.threadIdx.y)
        across, down = lane % ACROSS, lane // ACROSS
        left, right = warp * STAGE, warp * STAGE + PIECE

        tile, group, tiles = np.int32(cuda.blockIdx.x), np.int32(0), np.int32(0)
        while tile >= tiles:
            tile -= tiles
            x_start, dim, rows = groups[6 * group], groups[6 * group + 1], groups[6 * group + 2]
            g_start, columns, weight = groups[6 * group + 3], groups[6 * group + 4], groups[6 * group + 5]
            factor = factors[group]
            column_tiles = (columns + TILE - 1) // TILE
            tiles = (rows + TILE - 1) // TILE * column_tiles
            group += 1
        row, column = tile // column_tiles * TILE, tile % column_tiles * TILE

        pieces = (nodes + DEPTH - 1) // DEPTH * dim
        piece, nodes_left, sums, staged = np.int64(warp), np.int32(0), none, False
        while True:
            more = piece < pieces
            if more:
                node = piece // dim * DEPTH
                component = piece - piece // dim * dim
                nodes_left = np.int32(min(nodes - node, DEPTH))
                x_begin, g_begin = np.int64(node) * x_length, np.int64(node) * g_length
                x_place = x_start + component * rows + min(row + lane, rows - 1)
                g_place = g_start + component * columns + min(column + lane, columns - 1)
                for n in range(DEPTH):
                    k = min(np.int32(n), nodes_left - 1)
                    next_left[n] = x[x_begin + np.int32(k * np.int32(x_length) + x_place)]
                    next_right[n] = g[g_begin + np.int32(k * np.int32(g_length) + g_place)]
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
                memory[warp * TILE * TILE + (ROWS * down + i) * TILE + COLUMNS * across + j] = sums[COLUMNS * i + j]
        cuda.syncthreads()
        i = warp
        while i < TILE:
            if row + i < rows and column + lane < columns:
                total = zero
                for other in range(warps):
                    total += memory[other * TILE * TILE + i * TILE + lane]
                gradient[weight + (row + i) * columns + column + lane] = number(factor * total)
            i += warps

    return kernel


def compile_mixing(part: str, dtype: str, compute_capability: tuple[int, int]) -> Binary:
    """Machine code for "float32" or "float64" numbers; needs no GPU."""
    code = machine_code(mixing_assembly(part, dtype, compute_capability), compute_capability)
    return Binary(code, 1, (LANES, WARPS[dtype], 1), 0)


def mixing_assembly(part: str, dtype: str, compute_capability: tuple[int, int]) -> str:
    """The kernel of this part as PTX."""
    number, warps = getattr(types, dtype), WARPS[dtype]
    multiply = multiply_of(number, by_columns=part == WEIGHTS)
    if part == WEIGHTS:
        kernel = weight_gradient_kernel(number, warps, multiply)
    else:
        kernel = mixing_kernel(number, warps, part == TRANSPOSED, multiply)
    numbers, integers = types.CPointer(number), types.CPointer(types.int32)
    arguments = [*[numbers] * 3, integers, integers, types.CPointer(types.float64), *[types.int64] * 3]
    return assembly(kernel, arguments, (LANES * warps, BLOCKS), compute_capability)
