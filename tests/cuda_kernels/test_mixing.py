"""The kernels of linear maps in numba's simulator of a GPU, and what the assembler makes of them."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("numba_cuda", reason="the CUDA kernels' compiler is not installed")

from cuda_kernels.cuda_mixing import compile_mixing, mixing_assembly
from cuda_kernels.mixing import FORWARD, TRANSPOSED, WEIGHTS

SCRIPT = """
import threading
from collections import defaultdict
from itertools import accumulate

import numpy as np
from numba import cuda
from numba.cuda.simulator.kernelapi import FakeCUDAModule, FakeCUDAShared

from cuda_kernels.cuda_mixing import COLUMNS, DEEP, DEPTH, ROWS, WIDE, mixing_kernel, weight_gradient_kernel
from cuda_kernels.mixing import FORWARD, TRANSPOSED, WEIGHTS, Mixing, tiles_of

WARPS = 2
barriers = defaultdict(lambda: threading.Barrier(32))


def syncwarp():  # which the simulator lacks, as it does alignments
    thread = threading.current_thread()
    barriers[thread.blockIdx.x, thread.blockIdx.y, thread.threadIdx.y].wait()


shared_array = FakeCUDAShared.array
FakeCUDAModule.syncwarp = staticmethod(syncwarp)
FakeCUDAShared.array = lambda memory, shape, dtype, alignment: shared_array(memory, shape, dtype)


class Parts:
    def __init__(self, left_deep, right_deep):
        self.left_deep, self.right_deep = left_deep, right_deep

    def fetch(self, deep):
        rows = 8 if deep else 4

        def fetch(numbers, begin, first, limit, step):
            places = [begin + min(first + rows * n, limit - 1) * step + k for n in range(4) for k in range(4)]
            return tuple(numbers[place] for place in places)

        return fetch

    def put(self, deep):
        rows, pitch = (8, DEEP) if deep else (4, WIDE)

        def put(memory, place, fetched, first, limit):
            for n in range(4):
                kept = first + rows * n < limit
                memory[place + n * rows * pitch :][:4] = fetched[4 * n : 4 * n + 4] if kept else 0.0

        return put

    def multiply(self):
        def multiply(sums, memory, left, right, down, across):
            k = np.arange(DEPTH)
            i, j = np.arange(ROWS)[:, None], np.arange(COLUMNS)
            rows = left + ((down + 4 * i) * DEEP + k if self.left_deep else k * WIDE + ROWS * down + i)
            k = k[:, None]
            columns = right + ((across + 8 * j) * DEEP + k if self.right_deep else k * WIDE + COLUMNS * across + j)
            return tuple(np.array(sums) + (memory[rows] @ memory[columns]).reshape(-1))

        return multiply


# Slots wider than a tile, an output of two inputs, an input that is not read, an output without input.
mixing = Mixing(
    inputs=((1, 36), (3, 8), (3, 44), (5, 4), (7, 4)),
    outputs=((1, 40), (3, 36), (5, 8), (1, 4)),
    sources=((0,), (1, 2), (3,), ()),
    factors=(0.5, 0.25, 2.0, 1.0),
)
random, nodes = np.random.default_rng(0), 37
x, weights, g = (random.normal(size=mixing.shape(part, nodes)) for part in (TRANSPOSED, WEIGHTS, FORWARD))


def split(row, shapes):
    ends = list(accumulate(dim * channels for dim, channels in shapes))
    return [part.reshape(nodes, *shape) for part, shape in zip(np.split(row, ends, axis=1), shapes)]


y, by_x, by_weights = np.zeros_like(g), np.zeros_like(x), []
ys, by_xs, weight = split(y, mixing.outputs), split(by_x, mixing.inputs), 0
for out, g_out, sources, factor in zip(ys, split(g, mixing.outputs), mixing.sources, mixing.factors):
    for source in sources:
        x_in = split(x, mixing.inputs)[source]
        shape = x_in.shape[2], out.shape[2]
        matrix = factor * weights[weight : weight + shape[0] * shape[1]].reshape(shape)
        out += x_in @ matrix
        by_xs[source] += g_out @ matrix.T
        by_weights.append(factor * np.einsum("ndu,ndv->uv", x_in, g_out).reshape(-1))
        weight += matrix.size
y, by_x = (np.concatenate([part.reshape(nodes, -1) for part in parts], axis=1) for parts in (ys, by_xs))

for part, kernel, left, right, expected in (
    (FORWARD, mixing_kernel(np.float64, WARPS, Parts(True, False)), x, weights, y),
    (TRANSPOSED, mixing_kernel(np.float64, WARPS, Parts(True, True)), g, weights, by_x),
    (WEIGHTS, weight_gradient_kernel(np.float64, WARPS, Parts(False, False)), x, g, np.concatenate(by_weights)),
):
    table, found = mixing.table(part), np.full(expected.shape, np.nan)
    grid = (len(table.tiles), 1) if part == WEIGHTS else (tiles_of(nodes), len(table.tiles))
    arguments = [a.reshape(-1) for a in (left, right, found, *table)]
    lengths = left.shape[1], right.shape[1] if part == WEIGHTS else expected.shape[1]
    cuda.jit(kernel)[grid, (32, WARPS)](*arguments, nodes, *lengths)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)
"""


@pytest.mark.slow
def test_all_parts_are_those_of_matrix_products():
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-W", "ignore", "-c", SCRIPT], env=environment, check=True)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
@pytest.mark.parametrize("part", [FORWARD, TRANSPOSED, WEIGHTS])
def test_numbers_stay_in_registers_and_are_read_sixteen_bytes_at_a_time(part, dtype):
    binary = compile_mixing(part, dtype, (9, 0))
    assert binary.stack_bytes == 0
    assert 64 < binary.registers <= 255
    assert binary.block[0] * binary.block[1] * binary.registers <= 65536
    text = mixing_assembly(part, dtype, (9, 0))
    assert ".local" not in text
    assert text.count("ld.shared.v4.f32" if dtype == "float32" else "ld.shared.v2.f64") >= 8
    assert "atom." not in text
    assert "red.global" not in text
