"""The CUDA kernel: a warp owns 32 channels of a node, walks the node's edges and writes the node's row once."""

from __future__ import annotations

import re

import numpy as np
from cuda.core import Linker, LinkerOptions, ObjectCode
from numba import cuda
from numba.cuda import types

from . import numpy_compat  # noqa: F401  (before numba compiles anything)
from .binary import ENTRY, Binary
from .cuda_parts import Parts
from .polynomial import Contraction
from .problem import Problem
from .schedule import REGISTERS, Segment, segments
from .staging import LANES


def kernel_of(segment: Segment):
    """The kernel of one segment, for numba.cuda; grid (blocks of nodes, channel blocks), block (a warp, nodes).

    `inputs` and `outputs` are addresses of the contraction's operands; node n < nodes has the list positions first[n] to
    first[n + 1]; position p is edge edges[p], whose far end is node others[p]. Warps of different channels add to the
    gradient of the edge features `copy_bytes` apart (0: to the same rows).
    """
    parts = Parts(segment)
    read_index, shared_address = parts.read_index(), parts.shared_address()
    stage_edge, commit_copies, wait_for_oldest = parts.stage_edge(), parts.commit_copies(), parts.wait_for_oldest()
    read_owned, zeros, contract = parts.read_owned(), parts.zeros(), parts.contract()
    scatter, write_owned = parts.scatter(), parts.write_owned()
    number, u32 = parts.number, np.uint32  # a plain integer would make all indices 64 bits wide
    one, warp, stages_ahead = u32(1), u32(LANES), u32(segment.stages - 1)
    stage_bytes, all_stages, warp_bytes = (
        u32(n) for n in (segment.stage.size, segment.stages * segment.stage.size, segment.warp_bytes)
    )

    def kernel(inputs, outputs, first, edges, others, copy_bytes, nodes):
        node, lane = u32(cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y), u32(cuda.threadIdx.x)
        if node >= nodes:
            return
        channel = u32(cuda.blockIdx.y) * warp
        copy = copy_bytes * u32(cuda.blockIdx.y)
        shared = shared_address(cuda.shared.array(0, number, alignment=16))
        stages = u32(shared + u32(cuda.threadIdx.y) * warp_bytes)
        ring_end = u32(stages + all_stages)
        position, end = read_index(first, node), read_index(first, node + one)

        staged = stages
        ahead = position
        for _ in range(stages_ahead):
            if ahead < end:
                stage_edge(staged, inputs, read_index(edges, ahead), read_index(others, ahead), channel, lane)
            commit_copies()
            staged = u32(staged + stage_bytes)
            ahead = u32(ahead + one)
        next_edge, next_other = u32(0), u32(0)  # read an edge earlier than they are needed
        if ahead < end:
            next_edge, next_other = read_index(edges, ahead), read_index(others, ahead)

        owned, sums = read_owned(inputs, node, channel, lane), zeros()
        taken = stages
        while position < end:
            wait_for_oldest()
            cuda.syncwarp()
            if ahead < end:
                stage_edge(staged, inputs, next_edge, next_other, channel, lane)
                after = u32(min(ahead + one, end - one))
                next_edge, next_other = read_index(edges, after), read_index(others, after)
            commit_copies()
            edge, other = read_index(edges, position), read_index(others, position)
            sums, gradients = contract(sums, owned, taken, lane)
            scatter(outputs, edge, other, copy, channel, lane, ring_end, gradients)
            staged = taken
            taken = u32(taken + stage_bytes)
            if taken == ring_end:
                taken = stages
            position = u32(position + one)
            ahead = u32(ahead + one)
        write_owned(outputs, node, channel, lane, sums)

    return kernel


def compile_pass(
    problem: Problem, contraction: Contraction, owner: str, compute_capability: tuple[int, int]
) -> list[Binary]:
    """The kernels of one pass, in the order in which they must run; needs no GPU.

    The schedule estimates registers; where the assembler finds too few, the pass is cut finer.
    """
    budget, tried = REGISTERS, None
    while True:
        cut = segments(problem, contraction, owner, budget)
        if cut != tried:
            binaries = [compile_segment(segment, compute_capability) for segment in cut]
        if not any(binary.stack_bytes for binary in binaries) or budget < REGISTERS // 4:
            return binaries
        budget, tried = budget * 7 // 8, cut


def compile_segment(segment: Segment, compute_capability: tuple[int, int]) -> Binary:
    """Machine code for one GPU architecture; needs no GPU."""
    text = assembly(segment, compute_capability)
    options = LinkerOptions(arch="sm_{}{}".format(*compute_capability))
    cubin = bytes(Linker(ObjectCode.from_ptx(text.encode()), options=options).link("cubin").code)
    return Binary(cubin, segment.channel_blocks, segment.warps, segment.warps * segment.warp_bytes)


def assembly(segment: Segment, compute_capability: tuple[int, int]) -> str:
    """The kernel as PTX, for people and for the assembler."""
    address = types.uint64
    inputs, outputs = segment.contraction.inputs, segment.contraction.outputs
    addresses = types.UniTuple(address, len(inputs)), types.UniTuple(address, len(outputs))
    signature = types.void(*addresses, *[address] * 4, types.uint32)
    text, _ = cuda.compile_ptx(
        kernel_of(segment), signature, cc=compute_capability, launch_bounds=(LANES * segment.warps, 1), abi="numba", device=False
    )
    mangled = re.search(r"\.entry\s+(\w+)", text).group(1)
    return text.replace(mangled, ENTRY.decode())

