"""Adding up the rows of nodes whose edges several blocks of threads walked, in one fixed order."""

from __future__ import annotations

import numpy as np
from numba import cuda
from numba.cuda import types

from .binary import FOLD_COLUMNS, FOLD_SHARES, Binary
from .cuda_compile import assembly, machine_code


def kernel_of(number: types.Type):
    """The kernel for rows of these numbers: rows[node] += the sum of partials[r] over all r with continuing[r] == node.

    Equal entries of `continuing` follow each other; entries equal to `nodes` have no partial row. Grid (any, blocks of
    columns); block (columns, shares): each share adds up every so manieth row.
    """

    def kernel(rows, partials, continuing, count, nodes, length):
        shares = cuda.shared.array((FOLD_SHARES, FOLD_COLUMNS), number)
        lane, share = np.int64(cuda.threadIdx.x), np.int64(cuda.threadIdx.y)
        column = np.int64(cuda.blockIdx.y) * FOLD_COLUMNS + lane
        first = np.int64(cuda.blockIdx.x)
        while first < count:
            node = continuing[first]
            if node < nodes and (first == 0 or continuing[first - 1] != node):
                total = number(0)
                r = first + share
                while r < count and continuing[r] == node:
                    if column < length:
                        total += partials[r * length + column]
                    r += FOLD_SHARES
                shares[share, lane] = total
                cuda.syncthreads()
                if share == 0 and column < length:
                    total = rows[node * length + column]
                    for n in range(FOLD_SHARES):
                        total += shares[n, lane]
                    rows[node * length + column] = total
                cuda.syncthreads()
            first += cuda.gridDim.x

    return kernel


def compile_fold(dtype: str, compute_capability: tuple[int, int]) -> Binary:
    """Machine code for rows of "float32" or "float64" numbers; needs no GPU."""
    number = getattr(types, dtype)
    row = types.CPointer(number)
    arguments = [row, row, types.CPointer(types.int32), *[types.int64] * 3]
    text = assembly(kernel_of(number), arguments, (FOLD_COLUMNS * FOLD_SHARES, 1), compute_capability)
    return Binary(machine_code(text, compute_capability), 1, (FOLD_COLUMNS, FOLD_SHARES, 1), 0)
