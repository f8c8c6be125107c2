"""Adding up the rows of nodes whose edges several blocks of threads walked, in one fixed order."""

from __future__ import annotations

import numpy as np
from numba import cuda
from numba.cuda import types

from .binary import FOLD_COLUMNS, Binary
from .cuda_compile import assembly, machine_code


def kernel(rows, partials, continuing, count, nodes, length):
    """rows[node] += the sum of partials[r] over all r with continuing[r] == node; grid (count, blocks of columns).

    Equal entries of `continuing` follow each other; entries equal to `nodes` have no partial row.
    """
    r, column = np.int64(cuda.blockIdx.x), np.int64(cuda.blockIdx.y) * FOLD_COLUMNS + cuda.threadIdx.x
    node = continuing[r]
    if node >= nodes or column >= length or (r > 0 and continuing[r - 1] == node):
        return
    place = node * length + column
    total = rows[place]
    while r < count and continuing[r] == node:
        total += partials[r * length + column]
        r += 1
    rows[place] = total


def compile_fold(dtype: str, compute_capability: tuple[int, int]) -> Binary:
    """Machine code for rows of "float32" or "float64" numbers; needs no GPU."""
    row = types.CPointer(getattr(types, dtype))
    arguments = [row, row, types.CPointer(types.int32), *[types.int64] * 3]
    text = assembly(kernel, arguments, (FOLD_COLUMNS, 1), compute_capability)
    return Binary(machine_code(text, compute_capability), 1, (FOLD_COLUMNS, 1, 1), 0, 0)
