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
    parts = Parts(segment)
    number, u32 = parts.number, np.uint32  # a plain integer would make all indices 64 bits wide
    read_index, read_start, shared_address = parts.read_index(), parts.read_start(), parts.shared_address()
    stage_edge, commit_copies, wait_for_oldest = parts.stage_edge(), parts.commit_copies(), parts.wait_for_oldest()
    read_owned, zeros, contract = parts.read_owned(), parts.zeros(), parts.contract()
    keep_feature_sums, scatter, write_owned = parts.keep_feature_sums(), parts.scatter(), parts.write_owned()
    stage_first, write_batch = _stage_first(segment, parts), _write_batch(segment, parts)
    zero, one, batch, lanes, warps = u32(0), u32(1), u32(BATCH), u32(LANES), u32(segment.warps)
    channels, channel_parts, block_rows = u32(segment.multiplicity), u32(segment.channel_parts), u32(segment.rows)
    stage_bytes, ring_bytes, kept_bytes = u32(segment.stage.size), u32(segment.ring_bytes), u32(segment.kept_bytes)
    warp_bytes, batch_bytes, row_bytes = u32(segment.warp_bytes), u32(segment.batch_bytes), u32(segment.row_bytes)
    has_features = segment.features > 0

    def kernel(inputs, outputs, partials, starts, owners, edges, others, rows, nodes):
        lane, warp, place = u32(cuda.threadIdx.x), u32(cuda.threadIdx.y), u32(cuda.threadIdx.z)
        rows_before = u32(cuda.blockIdx.x // channel_parts)
        part = u32(cuda.blockIdx.x - rows_before * channel_parts)
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
            staged, ahead, next_edge, next_other = stage_first(ring, inputs, edges, others, begin, end, channel, lane)
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
                    write_batch(outputs, edges, position, filled, kept, warp, lane, channel)
                    kept = zero

            if row > zero and read_index(owners, u32(row - one)) == node:
                write_owned(partials, u32(row - node - one), channel, lane, sums)
            else:
                write_owned(outputs, node, channel, lane, sums)
            channel = u32(channel + channel_parts * warps * lanes)

    return kernel


def _stage_first(segment: Segment, parts: Parts) -> Callable:
    """(ring, inputs, edges, others, begin, end, first channel, lane) -> (stage, position, edge, far node): starts to
    copy a row's first edges, a group for each stage but the last. The edge to copy next is read before it is needed."""
    read_index, stage_edge, commit_copies = parts.read_index(), parts.stage_edge(), parts.commit_copies()
    u32, stages_ahead, stage_bytes = np.uint32, np.uint32(segment.stages - 1), np.uint32(segment.stage.size)

    @cuda.jit(device=True, inline="always")
    def stage_first(ring, inputs, edges, others, begin, end, channel, lane):
        stage, position = ring, begin
        for _ in range(stages_ahead):
            if position < end:
                stage_edge(stage, inputs, read_index(edges, position), read_index(others, position), channel, lane)
            commit_copies()
            stage, position = u32(stage + stage_bytes), u32(position + u32(1))
        edge, other = u32(0), u32(0)
        if position < end:
            edge, other = read_index(edges, position), read_index(others, position)
        return stage, position, edge, other

    return stage_first


def _write_batch(segment: Segment, parts: Parts) -> Callable:
    """(outputs, edges, end, batch, slots, warp, lane, first channel): the block's threads share out the feature
    gradients of so many edges, the last before position `end`, and sum each over the warps."""
    read_index, feature_sum, write_feature = parts.read_index(), parts.feature_sum(), parts.write_feature()
    u32, features, block_channels = np.uint32, np.uint32(segment.features), np.uint32(segment.warps * LANES)

    @cuda.jit(device=True, inline="always")
    def write_batch(outputs, edges, end, batch, slots, warp, lane, channel):
        n = u32(warp * u32(LANES) + lane)
        while n < slots * features:
            slot = u32(n // features)
            feature = u32(n - slot * features)
            edge = read_index(edges, end - slots + slot)
            total = feature_sum(batch, slot, feature)
            write_feature(outputs, edge, feature, total, channel >= block_channels)
            n = u32(n + block_channels)

    return write_batch


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
