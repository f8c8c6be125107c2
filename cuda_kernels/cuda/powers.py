"""The CUDA kernels of polynomials of features: a block of threads takes some sites of one target, 32 channels of them.

The polynomials are long: hundreds of coefficients for each channel, which all sites of a target share. Sites' features
lie in shared memory. The coefficients are gone through in chunks, whose numbers wait in registers while one site passes
after the other: so machine code and coefficients are read once for several sites. Where a number is written for each
site, each warp has sites of its own. Where numbers are summed over sites, each warp has chunks of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import cuda
from numba.cuda import types

from ..contraction import Contraction
from ..passes import Pass
from ..problem import OUT, Problem, base
from .binary import Binary
from .compile import assembly, machine_code
from .powers_parts import PowersParts, Shape, has_sums
from .segment import shared_bytes
from .staging import LANES

OUTPUTS = Shape(coefficients=96, warps=4, blocks=4)
"""H200, 4,096 nodes, l = 3 to l = 2, 128 channels: 0.058 ms; with 72 coefficients 0.060, with 96 and 3
blocks 0.064."""
BY_FEATURES = Shape(coefficients=112, warps=6, blocks=2)
"""H200, the same: 0.114 ms; with 4 warps and 3 blocks 0.119, with 96 coefficients, too, 0.125."""
BOTH = Shape(coefficients=84, warps=6, blocks=2)
"""Outputs and derivatives by features of a double backward, which have two sets of coefficients: 112 spill."""
BY_COEFFICIENTS = Shape(coefficients=64, warps=12, blocks=1)
"""H200, the same: 0.070 ms without its fold; with 8 warps and 2 blocks 0.074, with 16 and one 0.080."""
TOGETHER = 4
"""Rows that a block walks together where it sums over nodes: each block writes all sums."""
FEWEST = 12
"""Coefficients of a chunk."""


def kernel_of(parts: PowersParts) -> Callable:
    """The kernel, for numba.cuda; grid: rows, `parts.together` to a block, times parts of their channels; block: (a
    warp, warps). Its arguments are those of `kernel.kernel_of`."""
    read_index, read_start, shared_address = parts.read_index(), parts.read_start(), parts.shared_address()
    contract_sites, number, u32 = parts.contract_sites(), parts.number, np.uint32
    channel_parts, lanes, one, together = u32(parts.channel_parts), u32(LANES), u32(1), u32(parts.together)

    def kernel(inputs, outputs, partials, starts, owners, edges, others, rows, nodes):
        lane, warp = u32(cuda.threadIdx.x), u32(cuda.threadIdx.y)
        group = u32(cuda.blockIdx.x // channel_parts)
        channel = u32((cuda.blockIdx.x - group * channel_parts) * lanes)
        memory = u32(shared_address(cuda.shared.array(0, number, alignment=16)))
        row = u32(group * together)
        limit = min(u32(row + together), u32(rows))
        while row < limit:
            node, following = read_index(owners, row), u32(row + one)
            if node >= nodes:
                return
            while following < limit and read_index(owners, following) == node:
                following = u32(following + one)
            begin, end = read_start(starts, row, nodes), read_start(starts, following, nodes)
            sums, place = outputs, node
            if row > u32(0) and read_index(owners, u32(row - one)) == node:
                sums, place = partials, u32(row - node - one)
            contract_sites(inputs, outputs, sums, memory, edges, node, place, begin, end, channel, warp, lane)
            row = following

    return kernel


def compile_pass(problem: Problem, walk: Pass, compute_capability: tuple[int, int]) -> list[Binary]:
    """The kernel of one pass, its chunks as long as registers allow, its blocks as large as shared memory; needs no
    GPU."""
    shape, together = _shape(problem, walk.contraction)
    while True:
        parts = PowersParts(problem, walk.contraction, shape, compute_capability, together)
        if parts.shared_bytes > shared_bytes(compute_capability, 1) and shape.warps > 1:
            shape = shape._replace(warps=shape.warps // 2)
            continue
        binary = _compiled(parts, compute_capability)
        if not binary.stack_bytes or shape.coefficients <= FEWEST:
            return [binary]
        shape = shape._replace(coefficients=shape.coefficients * 3 // 4)


def _shape(problem: Problem, contraction: Contraction) -> tuple[Shape, int]:
    """For what a pass computes; and rows that a block walks together."""
    if has_sums(problem, contraction):
        return BY_COEFFICIENTS, TOGETHER
    outputs = set(map(base, contraction.outputs))
    if problem.form[OUT] not in outputs:
        return BY_FEATURES, 1
    return (OUTPUTS if len(outputs) == 1 else BOTH), 1


def _compiled(parts: PowersParts, compute_capability: tuple[int, int]) -> Binary:
    code = machine_code(powers_assembly(parts, compute_capability), compute_capability)
    return Binary(code, parts.channel_parts, (LANES, parts.shape.warps, 1), parts.shared_bytes, parts.together)


def powers_assembly(parts: PowersParts, compute_capability: tuple[int, int]) -> str:
    """The kernel as PTX."""
    inputs, outputs = parts.contraction.inputs, parts.contraction.outputs
    operands = [types.UniTuple(types.uint64, len(o)) for o in (inputs, outputs, outputs)]
    arguments = [*operands, *[types.uint64] * 4, *[types.uint32] * 2]
    bounds = LANES * parts.shape.warps, parts.shape.blocks
    return assembly(kernel_of(parts), arguments, bounds, compute_capability)
