"""CUDA kernels of linear maps of features: all irreps in one launch, where they lie.

Small molecules wait for launches: matrix products, one for each irrep, would need as many copies to put a component's
rows side by side, and another one to put the results together. Here a block of threads takes a tile of one component,
nodes by channels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import cuda
from numba.cuda import types

from ..linear import FOUR, TILE, Part
from .binary import Binary
from .compile import assembly, machine_code
from .linear_parts import ACROSS, COLUMNS, DEEP, DEPTH, READ_BYTES, ROWS, STAGE, WIDE, Parts
from .staging import LANES

i32, u32 = np.int32, np.uint32  # an index without sign does not count from the end

# Of a block, whose stages fit the 48 kB that it has without asking. Gradients by weights sum over all nodes.
WARPS = {Part.MAP: 4, Part.TRANSPOSE: 4, Part.WEIGHTS: 8}
WARPS_OF_DOUBLES = 4


@cuda.jit(device=True, inline="always")
def total_of_warps(memory, warps, zero, row, lane):
    """What a block's warps have summed for a number of its tile; part of both kernels."""
    total = zero
    for other in range(warps):
        total += memory[u32((other * TILE + row) * WIDE + lane)]
    return total


def linear_kernel(number: types.Type, warps: int, parts: Parts) -> Callable:
    """y[node, component, v] = factor * the sum over terms and u of x[node, component, u] * weight[u, v], or, where the
    `parts` say that right pieces are deep, of weight[v, u]; for numba.cuda. Grid: (tiles of nodes, tiles of the
    `Table`); block: (lanes, warps).
    """
    zero, size = number(0), warps * STAGE
    none, nothing = (zero,) * (ROWS * COLUMNS), (zero,) * DEPTH
    transposed, multiply, spread = parts.right_deep, parts.multiply(), parts.spread()
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
        spread(memory, i32(warp * TILE * WIDE), sums, down, across)
        cuda.syncthreads()
        if lane < channels:
            factor, row = factors[i32(cuda.blockIdx.y)], warp
            while row < nodes_left:
                total = total_of_warps(memory, warps, zero, row, lane)
                y[(node + row) * y_length + start + lane] = number(factor * total)
                row += warps

    return kernel


def weight_gradient_kernel(number: types.Type, warps: int, parts: Parts) -> Callable:
    """gradient[u, v] = factor * the sum over nodes and components of x[node, component, u] * g[node, component, v].
    Grid: tiles of the `Table`; block: (lanes, warps).
    """
    zero, size = number(0), warps * STAGE
    none, nothing = (zero,) * (ROWS * COLUMNS), (zero,) * DEPTH
    fetch, put = parts.fetch(deep=False), parts.put(deep=False)
    multiply, spread = parts.multiply(), parts.spread()

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
        spread(memory, i32(warp * TILE * WIDE), sums, down, across)
        cuda.syncthreads()
        if lane < columns:
            factor, row = factors[i32(cuda.blockIdx.x)], warp
            while row < rows:
                total = total_of_warps(memory, warps, zero, row, lane)
                gradient[weight + row * g_channels + lane] = number(factor * total)
                row += warps

    return kernel


def compile_linear(part: Part, dtype: str, compute_capability: tuple[int, int]) -> Binary:
    """Machine code for "float32" or "float64" numbers; needs no GPU."""
    code = machine_code(linear_assembly(part, dtype, compute_capability), compute_capability)
    return Binary(code, 1, (LANES, _warps(part, dtype), 1), 0)


def linear_assembly(part: Part, dtype: str, compute_capability: tuple[int, int]) -> str:
    """The kernel of this part as PTX."""
    number, warps = getattr(types, dtype), _warps(part, dtype)
    parts = Parts(number, left_deep=part is not Part.WEIGHTS, right_deep=part is Part.TRANSPOSE)
    kernel = (weight_gradient_kernel if part is Part.WEIGHTS else linear_kernel)(number, warps, parts)
    numbers, integers = types.CPointer(number), types.CPointer(types.int32)
    arguments = [*[numbers] * 3, integers, integers, types.CPointer(types.float64), *[types.int64] * 3]
    return assembly(kernel, arguments, (LANES * warps, 1), compute_capability)


def _warps(part: Part, dtype: str) -> int:
    return WARPS[part] if dtype == "float32" else WARPS_OF_DOUBLES
