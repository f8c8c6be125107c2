"""Adding up the rows of nodes whose edges several blocks of threads walked, in one fixed order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import cuda
from numba.cuda import types

from .binary import FOLD_WARPS, Binary
from .compile import assembly, machine_code
from .staging import LANES

AT_ONCE = 8
"""Rows that a lane reads before it waits for the first."""


def kernel_of(number: types.Type) -> Callable:
    """The kernel for rows of these numbers: rows[node] += the sum of partials[r] over all r with continuing[r] == node.

    `continuing` is sorted; entries from `nodes` on have no partial row. Most graphs have only those: then it ends
    at once. Rows that were walked `together` have one partial row, that of the first, or they are in the node's own.
    Grid (any, any); block (lanes, warps): a warp adds up 32 columns of the nodes that begin in a window of
    `continuing`, of 32 entries at most, which its lanes look at. Blocks share out the columns, and in y the windows.
    """
    nothing = getattr(np, number.name)(0)
    u32, u64 = np.uint32, np.uint64  # plain integers would make all of it 64 bits wide
    zero, one, lanes, warps = map(u32, (0, 1, LANES, FOLD_WARPS))

    def kernel(rows, partials, continuing, count, nodes, length, together, window):
        lane = u32(cuda.threadIdx.x)
        first_column = u32(u32(cuda.blockIdx.x) * warps + u32(cuda.threadIdx.y)) * lanes + lane
        columns_step = u32(u32(cuda.gridDim.x) * warps) * lanes
        begin = u32(cuda.blockIdx.y) * window
        while begin < count and continuing[begin] < nodes:
            own = u32(begin + lane)
            begins = lane < window and own < count and continuing[own] < nodes
            if begins and own > zero:
                begins = continuing[u32(own - one)] != continuing[own]
            begun = u32(cuda.ballot_sync(0xFFFFFFFF, begins))
            while begun != zero:
                first = u32(begin + u32(cuda.ffs(begun)) - one)
                begun = u32(begun & u32(begun - one))
                node = continuing[first]
                # Of all rows, in which each node has one more than here, those of a block begin at a multiple.
                begin_of_block = u32(first + together - one - u32(first + node) % together)
                column = u64(first_column)
                while column < length:
                    total, r = rows[node * length + column], begin_of_block
                    while r < count and continuing[r] == node:
                        for ahead in range(AT_ONCE):  # reads that do not wait for each other
                            place = u32(r + u32(ahead) * together)
                            belongs = place < count and continuing[min(place, u32(count - one))] == node
                            value = partials[(place if belongs else r) * length + column]
                            total += value if belongs else nothing
                        r = u32(r + u32(AT_ONCE) * together)
                    rows[node * length + column] = total
                    column += columns_step
            begin = u32(begin + u32(cuda.gridDim.y) * window)

    return kernel


def compile_fold(dtype: str, compute_capability: tuple[int, int]) -> Binary:
    """Machine code for rows of "float32" or "float64" numbers; needs no GPU."""
    number = getattr(types, dtype)
    row = types.CPointer(number)
    arguments = [row, row, types.CPointer(types.uint32), *[types.uint32] * 2, types.uint64, *[types.uint32] * 2]
    text = assembly(kernel_of(number), arguments, (LANES * FOLD_WARPS, 1), compute_capability)
    return Binary(machine_code(text, compute_capability), 1, (LANES, FOLD_WARPS, 1), 0)
