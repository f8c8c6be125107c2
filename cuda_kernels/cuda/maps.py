"""The CUDA kernel of linear maps that each site has for itself: a warp walks through a site's weights.

Weights stream from memory to registers, 16 bytes a lane, and are used where they arrive; features and cotangents come
from the L1 cache. Lanes that stand side by side read a row of weights, one input channel's; several rows are read at a
time. Sums over edges stay with the lane that made them until the node is done.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import cuda
from numba.cuda import types

from ..passes import Pass
from ..problem import Problem
from .binary import Binary
from .compile import assembly, machine_code
from .maps_parts import MapsParts
from .staging import LANES

WARPS = 4
"""Of a block, which share out a node's edges."""
BLOCKS = 4
"""That a multiprocessor runs at a time, at least: their warps wait for memory in turn (an estimate)."""
ROWS_AHEAD = 8
"""Rows of weights that a lane reads before it uses the first of them. H100, DiffDock of 50,000 edges with 2, 4 and 8,
products of features included: forward 0.80, 0.75, 0.75, backward 1.69, 1.61, 1.49 ms."""
SHARED_BYTES = 96 * 1024
"""Of a block, at most."""


def kernel_of(parts: MapsParts, warps: int) -> Callable:
    """The kernel, for numba.cuda; grid: rows, block: (a warp, warps). Its arguments are those of `kernel.kernel_of`."""
    read_index, read_start, shared_address = parts.read_index(), parts.read_start(), parts.shared_address()
    contract_sites, write_sums = parts.contract_sites(), parts.write_sums()
    number, u32, has_sums = parts.number, np.uint32, parts.has_owned_sums
    all_warps, lanes, one, sums_bytes = u32(warps), u32(LANES), u32(1), u32(parts.sums_bytes)

    def kernel(inputs, outputs, partials, starts, owners, edges, others, rows, nodes):
        lane, warp, row = u32(cuda.threadIdx.x), u32(cuda.threadIdx.y), u32(cuda.blockIdx.x)
        node, begin, end = read_index(owners, row), read_start(starts, row, nodes), read_start(starts, row + one, nodes)
        if node >= nodes:
            return
        memory = u32(shared_address(cuda.shared.array(0, number, alignment=16)))
        own = u32(memory + warp * sums_bytes)
        contract_sites(inputs, outputs, own, edges, node, u32(begin + warp), end, all_warps, lane)
        if has_sums:
            cuda.syncthreads()
            thread, threads = u32(warp * lanes + lane), u32(all_warps * lanes)
            if row > u32(0) and read_index(owners, u32(row - one)) == node:
                write_sums(partials, u32(row - node - one), memory, all_warps, thread, threads)
            else:
                write_sums(outputs, node, memory, all_warps, thread, threads)

    return kernel


def compile_pass(problem: Problem, walk: Pass, compute_capability: tuple[int, int]) -> list[Binary]:
    """The kernel of one pass; needs no GPU. Fewer rows of weights are read ahead where registers are too few."""
    rows_ahead = ROWS_AHEAD
    while True:
        binary = _compiled(MapsParts(problem, walk.contraction, rows_ahead), compute_capability)
        if not binary.stack_bytes or rows_ahead == 1:
            return [binary]
        rows_ahead //= 2


def _compiled(parts: MapsParts, compute_capability: tuple[int, int]) -> Binary:
    warps = WARPS
    while warps > 1 and warps * parts.sums_bytes > SHARED_BYTES:
        warps //= 2
    code = machine_code(maps_assembly(parts, warps, compute_capability), compute_capability)
    return Binary(code, 1, (LANES, warps, 1), warps * parts.sums_bytes)


def maps_assembly(parts: MapsParts, warps: int, compute_capability: tuple[int, int]) -> str:
    """The kernel as PTX."""
    inputs, outputs = parts.contraction.inputs, parts.contraction.outputs
    operands = [types.UniTuple(types.uint64, len(o)) for o in (inputs, outputs, outputs)]
    arguments = [*operands, *[types.uint64] * 4, *[types.uint32] * 2]
    return assembly(kernel_of(parts, warps), arguments, (LANES * warps, BLOCKS), compute_capability)
