"""The CUDA kernel: a block owns a node, a warp of it 32 channels; it walks the node's edges and writes the node's row
once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import cuda
from numba.cuda import types

from ..passes import Pass
from ..problem import Problem
from .binary import Binary
from .compile import assembly, machine_code
from .parts import Parts
from .schedule import segments
from .segment import BATCH, REGISTERS, Segment
from .staging import LANES


def kernel_of(segment: Segment) -> Callable:
    """The kernel of one segment, for numba.cuda; grid: blocks of rows times parts of their channels,
    block: (a warp, warps of other channels, rows).

    `inputs` and `outputs` are addresses of the contraction's operands. Row r belongs to node owners[r] and walks the
    list positions starts[r] to starts[r + 1]; owners[r] == nodes marks an unused row. Position p is edge edges[p], its
    far end node others[p]. A node of many edges has several rows in succession: the first writes the node's outputs,
    the others write theirs to `partials`.

    Without a graph there are no lists: each row walks `starts` of the `nodes` positions, and position p is row p of the
    operands.
    """
    intrinsics = Parts(segment)
    read_index, read_start = intrinsics.read_index(), intrinsics.read_start()
    shared_address = intrinsics.shared_address()
    stage_edge, commit_copies, wait_for_oldest = (
        intrinsics.stage_edge(),
        intrinsics.commit_copies(),
        intrinsics.wait_for_oldest(),
    )
    read_owned, zeros, contract = intrinsics.read_owned(), intrinsics.zeros(), intrinsics.contract()
    scatter, write_owned = intrinsics.scatter(), intrinsics.write_owned()
    keep_feature_sums, feature_sum, write_feature = (
        intrinsics.keep_feature_sums(),
        intrinsics.feature_sum(),
        intrinsics.write_feature(),
    )
    number, u32 = intrinsics.number, np.uint32  # a plain integer would make all indices 64 bits wide
    zero, one, lanes, warps, stages_ahead = u32(0), u32(1), u32(LANES), u32(segment.warps), u32(segment.stages - 1)
    stage_bytes, ring_bytes, warp_bytes = u32(segment.stage.size), u32(segment.ring_bytes), u32(segment.warp_bytes)
    kept_bytes, row_bytes, block_rows = u32(segment.kept_bytes), u32(segment.row_bytes), u32(segment.rows)
    parts = u32(segment.channel_parts)
    channels, features, batch = u32(segment.multiplicity), u32(segment.features), u32(BATCH)
    batch_bytes, has_features = u32(segment.batch_bytes), segment.features > 0

    def kernel(inputs, outputs, partials, starts, owners, edges, others, rows, nodes):
        lane, warp, place = u32(cuda.threadIdx.x), u32(cuda.threadIdx.y), u32(cuda.threadIdx.z)
        rows_before = u32(cuda.blockIdx.x // parts)
        part = u32(cuda.blockIdx.x - rows_before * parts)
        row = u32(rows_before * block_rows + place)
        if row >= rows:
            return
        node, begin, end = read_index(owners, row), read_start(starts, row, nodes), read_start(starts, row + one, nodes)
        if node >= nodes:
            return
        filling = u32(shared_address(cuda.shared.array(0, number, alignment=16)) + place * row_bytes)
        filled = u32(filling + batch_bytes)
        ring = u32(filled + batch_bytes + warp * warp_bytes)
        ring_end = u32(ring + ring_bytes)
        kept_inputs, scratch = ring_end, u32(ring_end + kept_bytes)

        channel = u32((part * warps + warp) * lanes)
        while channel < channels:
            cuda.syncwarp()
            staged, ahead = ring, begin
            for _ in range(stages_ahead):
                if ahead < end:
                    stage_edge(staged, inputs, read_index(edges, ahead), read_index(others, ahead), channel, lane)
                commit_copies()
                staged, ahead = u32(staged + stage_bytes), u32(ahead + one)
            next_edge, next_other = zero, zero  # read an edge earlier than they are needed
            if ahead < end:
                next_edge, next_other = read_index(edges, ahead), read_index(others, ahead)

            owned, sums = read_owned(inputs, node, channel, lane, kept_inputs), zeros()
            position, taken, kept = begin, ring, zero
            while position < end:
                wait_for_oldest()
                cuda.syncwarp()
                if ahead < end:
                    stage_edge(staged, inputs, next_edge, next_other, channel, lane)
                    after = min(u32(ahead + one), u32(end - one))
                    next_edge, next_other = read_index(edges, after), read_index(others, after)
                commit_copies()
                edge, other = read_index(edges, position), read_index(others, position)
                sums, gradients = contract(sums, owned, kept_inputs, taken, lane)
                if has_features:  # before the scatter, which then has fewer numbers to hold
                    keep_feature_sums(filling, kept, warp, channel, lane, scratch, gradients)
                    kept = u32(kept + one)
                scatter(outputs, edge, other, channel, lane, scratch, gradients)
                staged, taken = taken, u32(taken + stage_bytes)
                if taken == ring_end:
                    taken = ring
                position, ahead = u32(position + one), u32(ahead + one)
                if has_features and (kept == batch or position == end):
                    cuda.syncthreads()
                    filling, filled = filled, filling
                    n = u32(warp * lanes + lane)
                    while n < kept * features:
                        slot = u32(n // features)
                        feature = u32(n - slot * features)
                        edge = read_index(edges, position - kept + slot)
                        total = feature_sum(filled, slot, feature)
                        write_feature(outputs, edge, feature, total, channel >= warps * lanes)
                        n = u32(n + warps * lanes)
                    kept = zero

            if row > zero and read_index(owners, u32(row - one)) == node:
                write_owned(partials, u32(row - node - one), channel, lane, sums)
            else:
                write_owned(outputs, node, channel, lane, sums)
            channel = u32(channel + parts * warps * lanes)

    return kernel


def compile_pass(problem: Problem, walk: Pass, compute_capability: tuple[int, int]) -> list[Binary]:
    """The kernels of one pass, in the order in which they must run; needs no GPU.

    The schedule estimates registers; where the assembler finds too few, the pass is cut finer.
    """
    budget, known = REGISTERS, {}
    while True:
        cut = segments(problem, walk, compute_capability, budget)
        for segment in cut:
            if segment not in known:
                known[segment] = compile_segment(segment)
        binaries = [known[segment] for segment in cut]
        if not any(binary.stack_bytes for binary in binaries) or budget < REGISTERS // 4:
            return binaries
        budget = budget * 15 // 16


def compile_segment(segment: Segment) -> Binary:
    """Machine code for one GPU architecture, for as many warps at a time as it does without spilling; needs no GPU."""
    if segment.denser:
        binary = _compiled(segment.denser)
        if not binary.stack_bytes:
            return binary
    return _compiled(segment)


def _compiled(segment: Segment) -> Binary:
    code = machine_code(segment_assembly(segment), segment.compute_capability)
    block = LANES, segment.warps, segment.rows
    return Binary(code, segment.channel_parts, block, segment.rows * segment.row_bytes)


def segment_assembly(segment: Segment) -> str:
    """The kernel of a segment as PTX."""
    inputs, outputs = segment.contraction.inputs, segment.contraction.outputs
    operands = [types.UniTuple(types.uint64, len(o)) for o in (inputs, outputs, outputs)]
    arguments = [*operands, *[types.uint64] * 4, *[types.uint32] * 2]
    bounds = LANES * segment.warps * segment.rows, segment.blocks_at_once
    return assembly(kernel_of(segment), arguments, bounds, segment.compute_capability)
