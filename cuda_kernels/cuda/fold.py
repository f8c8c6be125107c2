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
    Grid (any); block (lanes, warps): a warp adds up 32 columns of one node.
    """

    def kernel(rows, partials, continuing, count, nodes, length, together):
        lane, warp = np.int64(cuda.threadIdx.x), np.int64(cuda.threadIdx.y)
        column_blocks = (length + LANES - 1) // LANES
        item = np.int64(cuda.blockIdx.x) * FOLD_WARPS + warp
        while item < count * column_blocks:
            first = item // column_blocks
            column = (item - first * column_blocks) * LANES + lane
            node = continuing[first]
            if node >= nodes:
                return
            if (first == 0 or continuing[first - 1] != node) and column < length:
                # Of all rows, in which each node has one more than here, those of a block begin at a multiple.
                total, r = rows[node * length + column], first + (together - 1) - (first + node) % together
                most = (AT_ONCE - 1) * together
                while r + most < count and continuing[r + most] == node:
                    for ahead in range(AT_ONCE):
                        total += partials[(r + ahead * together) * length + column]
                    r += AT_ONCE * together
                while r < count and continuing[r] == node:
                    total += partials[r * length + column]
                    r += together
                rows[node * length + column] = total
            item += np.int64(cuda.gridDim.x) * FOLD_WARPS

    return kernel


def compile_fold(dtype: str, compute_capability: tuple[int, int]) -> Binary:
    """Machine code for rows of "float32" or "float64" numbers; needs no GPU."""
    number = getattr(types, dtype)
    row = types.CPointer(number)
    arguments = [row, row, types.CPointer(types.int32), *[types.int64] * 4]
    text = assembly(kernel_of(number), arguments, (LANES * FOLD_WARPS, 1), compute_capability)
    return Binary(machine_code(text, compute_capability), 1, (LANES, FOLD_WARPS, 1), 0)
