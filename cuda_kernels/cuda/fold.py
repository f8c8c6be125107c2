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
    Grid (any); block (lanes, warps): a warp adds up 32 columns of the nodes that begin in a window of `continuing`, of
    32 entries at most, which its lanes look at.
    """

    u32, u64 = np.uint32, np.uint64  # signed divisions take many more instructions
    nothing = getattr(np, number.name)(0)
    zero, one, lanes, warps = map(u64, (0, 1, LANES, FOLD_WARPS))

    def kernel(rows, partials, continuing, count, nodes, length, together, window):
        lane, warp = u64(cuda.threadIdx.x), u64(cuda.threadIdx.y)
        column_blocks = (length + lanes - one) // lanes
        item = u64(cuda.blockIdx.x) * warps + warp
        while item < (count + window - one) // window * column_blocks:
            number_of_window = item // column_blocks
            begin, column = number_of_window * window, (item - number_of_window * column_blocks) * lanes + lane
            if continuing[begin] >= nodes:
                return
            own = begin + lane
            begins = lane < window and own < count and continuing[own] < nodes
            if begins and own > zero:
                begins = continuing[own - one] != continuing[own]
            begun = u32(cuda.ballot_sync(0xFFFFFFFF, begins))
            while begun != u32(0):
                first = begin + u64(cuda.ffs(begun)) - one
                begun = u32(begun & u32(begun - u32(1)))
                node = u64(continuing[first])
                if column < length:
                    # Of all rows, in which each node has one more than here, those of a block begin at a multiple.
                    total, r = rows[node * length + column], first + (together - one) - (first + node) % together
                    while r < count and continuing[r] == node:
                        for ahead in range(AT_ONCE):  # reads that do not wait for each other
                            place = r + u64(ahead) * together
                            belongs = place < count and continuing[min(place, count - one)] == node
                            value = partials[(place if belongs else r) * length + column]
                            total += value if belongs else nothing
                        r += u64(AT_ONCE) * together
                    rows[node * length + column] = total
            item += u64(cuda.gridDim.x) * warps

    return kernel


def compile_fold(dtype: str, compute_capability: tuple[int, int]) -> Binary:
    """Machine code for rows of "float32" or "float64" numbers; needs no GPU."""
    number = getattr(types, dtype)
    row = types.CPointer(number)
    arguments = [row, row, types.CPointer(types.uint32), *[types.uint64] * 5]
    text = assembly(kernel_of(number), arguments, (LANES * FOLD_WARPS, 1), compute_capability)
    return Binary(machine_code(text, compute_capability), 1, (LANES, FOLD_WARPS, 1), 0)
