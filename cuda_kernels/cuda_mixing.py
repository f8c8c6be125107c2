"""CUDA kernels of linear maps of features: all irreps in one launch, where they lie.

Small molecules wait for launches: matrix products, one for each irrep, would need as many copies to put a component's
rows side by side, and another one to put the results together. Here a block of threads takes a tile of one component,
nodes by channels.
"""

from __future__ import annotations

import math

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

# A thread computes 4 x 4 numbers of a tile; a team of threads stages and multiplies 32 x 32 pieces of both factors.
SIDE, ACROSS = 4, TILE // 4
TEAM = ACROSS**2
LOADS, STEP = TILE * TILE // TEAM, TEAM // TILE
PITCH = TILE + 4  # rows of a staged piece, read four numbers at a time, begin in different banks of shared memory
READ_BYTES = 16  # of a thread at once, at most
SHARED_BYTES = 48 * 1024  # of a block that does not ask for more


def multiply_of(number, by_columns: bool):
    """(sums, left, right, down, across, k): the thread's 4 x 4 sums, in a tuple, with 4 further terms, k to k + 3.

    They are of rows ``down + 8 i`` of the staged piece ``left`` times columns ``4 across + j`` of ``right``; or, by
    columns, of columns ``4 down + i`` of ``left``.
    """

    @intrinsic
    def multiply(typingctx, sums, left, right, down, across, k):
        def codegen(context, builder, signature, arguments):
            sums, left, right, down, across, k = arguments
            arithmetic = Arithmetic(builder, number.name)
            left, right = (
                ptx.shared_address(builder, context.make_array(kind)(context, builder, array).data)
                for kind, array in zip(signature.args[1:3], (left, right), strict=True)
            )
            size = number.bitwidth // 8

            def four(tile, row, column):
                place = builder.add(builder.mul(row, I32(PITCH)), column)
                address = builder.add(tile, builder.mul(place, I32(size)))
                vector = ir.VectorType(arithmetic.scalar, READ_BYTES // size)
                numbers = []
                for part in range(SIDE // vector.count):
                    pointer = builder.inttoptr(
                        builder.add(address, I32(part * READ_BYTES)), ir.PointerType(vector, SHARED)
                    )
                    read = builder.load(pointer, align=READ_BYTES)
                    numbers += [builder.extract_element(read, I32(n)) for n in range(vector.count)]
                return numbers

            columns = [four(right, builder.add(k, I32(m)), builder.mul(across, I32(SIDE))) for m in range(SIDE)]
            if by_columns:
                rows = [four(left, builder.add(k, I32(m)), builder.mul(down, I32(SIDE))) for m in range(SIDE)]
                rows = list(zip(*rows, strict=True))
            else:
                rows = [four(left, builder.add(down, I32(ACROSS * i)), k) for i in range(SIDE)]
            totals = [builder.extract_value(sums, n) for n in range(SIDE * SIDE)]
            for m in range(SIDE):
                for i in range(SIDE):
                    for j in range(SIDE):
                        n = SIDE * i + j
                        totals[n] = arithmetic.fma(rows[i][m], columns[m][j], totals[n])
            for n, total in enumerate(totals):
                sums = builder.insert_value(sums, total, n)
            return sums

        return sums(sums, left, right, types.int32, types.int32, types.int32), codegen

    return multiply


def mixing_kernel(number, transposed: bool, multiply):
    """y[node, component, v] = factor * the sum over terms and u of x[node, component, u] * weight[u, v], or of
    weight[v, u] if transposed; for numba.cuda. Grid: a block for each tile of `Table.blocks`; block: a team.
    """
    zero = number(0)
    none = (zero,) * SIDE**2

    def kernel(x, weights, y, groups, terms, factors, nodes, x_length, y_length):
        left = cuda.shared.array((TILE, PITCH), number)
        right = cuda.shared.array((TILE, PITCH), number)
        next_left = cuda.local.array(LOADS, number)
        next_right = cuda.local.array(LOADS, number)
        thread = np.int32(cuda.threadIdx.x)
        lane, first = thread % TILE, thread // TILE
        across, down = thread % ACROSS, thread // ACROSS

        tile, group, node_tiles = np.int32(cuda.blockIdx.x), np.int32(0), (nodes + TILE - 1) // TILE
        tiles = np.int32(0)
        while tile >= tiles:
            tile -= tiles
            start, dim, channels = groups[5 * group], groups[5 * group + 1], groups[5 * group + 2]
            term, terms_left = groups[5 * group + 3], groups[5 * group + 4]
            factor = factors[group]
            channel_tiles = (channels + TILE - 1) // TILE
            tiles = dim * node_tiles * channel_tiles
            group += 1
        component = tile // (node_tiles * channel_tiles)
        tile -= component * node_tiles * channel_tiles
        node, channel = tile // channel_tiles * TILE, tile % channel_tiles * TILE

        sums, depth, staged, inside = none, np.int32(0), False, False
        while True:
            more = terms_left > 0
            if more:  # the next piece is under way while this one is multiplied; beyond an end it repeats the last one
                width, weight = terms[3 * term + 1], terms[3 * term + 2]
                inside = depth + lane < width
                place = terms[3 * term] + component * width + min(depth + lane, width - 1)
                for n in range(LOADS):
                    row = first + n * STEP
                    next_left[n] = x[np.int64(min(node + row, nodes - 1)) * x_length + place]
                    if transposed:
                        above = min(channel + row, channels - 1)
                        next_right[n] = weights[weight + above * width + min(depth + lane, width - 1)]
                    else:
                        above = min(depth + row, width - 1)
                        next_right[n] = weights[weight + above * channels + min(channel + lane, channels - 1)]
                depth += TILE
                if depth >= width:
                    depth, term, terms_left = np.int32(0), term + 1, terms_left - 1
            if staged:
                for k in range(0, TILE, SIDE):
                    sums = multiply(sums, left, right, down, across, np.int32(k))
            if not more:
                break
            cuda.syncthreads()
            for n in range(LOADS):
                row = first + n * STEP
                left[row, lane] = next_left[n] if inside else zero
                if transposed:
                    right[lane, row] = next_right[n]
                else:
                    right[row, lane] = next_right[n]
            staged = True
            cuda.syncthreads()

        for i in range(SIDE):
            row = node + down + ACROSS * i
            for j in range(SIDE):
                column = channel + SIDE * across + j
                if row < nodes and column < channels:
                    place = np.int64(row) * y_length + start + component * channels + column
                    y[place] = number(factor * sums[SIDE * i + j])

    return kernel


def weight_gradient_kernel(number, teams: int, multiply):
    """gradient[u, v] = factor * the sum over nodes and components of x[node, component, u] * g[node, component, v].
    Grid: a block for each tile of `Table.blocks`; block: a team, and several of them, which take nodes in turn.
    """
    zero = number(0)
    none = (zero,) * SIDE**2

    def kernel(x, g, gradient, groups, terms, factors, nodes, x_length, g_length):
        left = cuda.shared.array((teams, TILE, PITCH), number)
        right = cuda.shared.array((teams, TILE, PITCH), number)
        next_left = cuda.local.array(LOADS, number)
        next_right = cuda.local.array(LOADS, number)
        thread, team = np.int32(cuda.threadIdx.x), np.int32(cuda.threadIdx.y)
        lane, first = thread % TILE, thread // TILE
        across, down = thread % ACROSS, thread // ACROSS

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

        pieces = (nodes + TILE - 1) // TILE * dim
        rounds = (pieces + teams - 1) // teams
        sums, node = none, nodes
        for step in range(rounds + 1):
            if step < rounds:
                piece = step * teams + team
                node = piece // dim * TILE
                component = piece % dim
                x_place = x_start + component * rows + min(row + lane, rows - 1)
                g_place = g_start + component * columns + min(column + lane, columns - 1)
                for n in range(LOADS):
                    k = min(node + first + n * STEP, nodes - 1)
                    next_left[n] = x[np.int64(k) * x_length + x_place]
                    next_right[n] = g[np.int64(k) * g_length + g_place]
            if step > 0:
                for k in range(0, TILE, SIDE):
                    sums = multiply(sums, left[team], right[team], down, across, np.int32(k))
            cuda.syncthreads()
            for n in range(LOADS):
                k = first + n * STEP
                left[team, k, lane] = next_left[n] if node + k < nodes else zero
                right[team, k, lane] = next_right[n]
            cuda.syncthreads()

        for i in range(SIDE):
            for j in range(SIDE):
                left[team, SIDE * down + i, SIDE * across + j] = sums[SIDE * i + j]
        cuda.syncthreads()
        n = team * TEAM + thread
        while n < TILE * TILE:
            i, j = n // TILE, n % TILE
            if row + i < rows and column + j < columns:
                total = zero
                for other in range(teams):
                    total += left[other, i, j]
                gradient[weight + (row + i) * columns + column + j] = number(factor * total)
            n += teams * TEAM

    return kernel


def teams_of(dtype: str) -> int:
    """Of a block of :func:`weight_gradient_kernel`, as many as its shared memory holds: small molecules have few tiles
    of weights, and many nodes and components for each."""
    return 2 ** int(math.log2(SHARED_BYTES // (2 * TILE * PITCH * np.dtype(dtype).itemsize)))


def compile_mixing(part: str, dtype: str, compute_capability: tuple[int, int]) -> Binary:
    """Machine code for "float32" or "float64" numbers; needs no GPU."""
    code = machine_code(mixing_assembly(part, dtype, compute_capability), compute_capability)
    return Binary(code, 1, _block(part, dtype), 0)


def mixing_assembly(part: str, dtype: str, compute_capability: tuple[int, int]) -> str:
    """The kernel of this part as PTX."""
    number = getattr(types, dtype)
    multiply = multiply_of(number, by_columns=part == WEIGHTS)
    if part == WEIGHTS:
        kernel = weight_gradient_kernel(number, teams_of(dtype), multiply)
    else:
        kernel = mixing_kernel(number, part == TRANSPOSED, multiply)
    numbers, integers = types.CPointer(number), types.CPointer(types.int32)
    arguments = [*[numbers] * 3, integers, integers, types.CPointer(types.float64), *[types.int64] * 3]
    return assembly(kernel, arguments, (math.prod(_block(part, dtype)), 1), compute_capability)


def _block(part: str, dtype: str) -> tuple[int, int, int]:
    return TEAM, teams_of(dtype) if part == WEIGHTS else 1, 1
