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
    """The kernel of one segment, for numba.cuda; grid (nodes, channel blocks), block: one warp.

    `inputs` and `outputs` are addresses of the contraction's operands; node n has the list positions first[n] to
    first[n + 1]; position p is edge edges[p], whose far end is node others[p]. Warps of different channels add to the
    gradient of the edge features `copy_bytes` apart (0: to the same rows).
    """
    parts = Parts(segment)
    read_index, shared_address = parts.read_index(), parts.shared_address()
    stage_edge, commit_copies, wait_for_oldest = parts.stage_edge(), parts.commit_copies(), parts.wait_for_oldest()
    read_owned, zeros, contract = parts.read_owned(), parts.zeros(), parts.contract()
    scatter, write_owned = parts.scatter(), parts.write_owned()
    number, u32 = parts.number, np.uint32  # a plain integer would make all indices 64 bits wide
    one, warp = u32(1), u32(LANES)
    stage_count, stages_ahead, stage_bytes = u32(segment.stages), u32(segment.stages - 1), u32(segment.stage.size)
    shared_numbers = segment.stages * segment.stage.size // segment.problem.item_bytes

    def kernel(inputs, outputs, first, edges, others, copy_bytes):
        node, lane = u32(cuda.blockIdx.x), u32(cuda.threadIdx.x)
        channel = u32(cuda.blockIdx.y) * warp
        copy = copy_bytes * u32(cuda.blockIdx.y)
        stages = shared_address(cuda.shared.array(shared_numbers, number, alignment=16))
        position, end = read_index(first, node), read_index(first, node + one)

        for ahead in range(position, position + stages_ahead):
            if ahead < end:
                stage = stages + (ahead - position) * stage_bytes
                stage_edge(stage, inputs, read_index(edges, ahead), read_index(others, ahead), channel, lane)
            commit_copies()

        owned, sums = read_owned(inputs, node, channel, lane), zeros()
        taken, free = u32(0), stages_ahead
        while position < end:
            wait_for_oldest()
            cuda.syncwarp()
            ahead = position + stages_ahead
            if ahead < end:
                stage = stages + free * stage_bytes
                stage_edge(stage, inputs, read_index(edges, ahead), read_index(others, ahead), channel, lane)
            commit_copies()
            sums, gradients = contract(sums, owned, stages + taken * stage_bytes, lane)
            scatter(outputs, read_index(edges, position), read_index(others, position), copy, channel, lane, gradients)
            free = taken
            taken = taken + one if taken + one < stage_count else u32(0)
            position += one
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
        if not any(binary.spilled_bytes for binary in binaries) or budget < REGISTERS // 4:
            return binaries
        budget, tried = budget * 7 // 8, cut


def compile_segment(segment: Segment, compute_capability: tuple[int, int]) -> Binary:
    """Machine code for one GPU architecture; needs no GPU."""
    text = assembly(segment, compute_capability)
    options = LinkerOptions(arch="sm_{}{}".format(*compute_capability), ptxas_options=["-v"])
    linker = Linker(ObjectCode.from_ptx(text.encode()), options=options)
    cubin = bytes(linker.link("cubin").code)
    log = linker.get_info_log() + linker.get_error_log()
    shared = segment.stages * segment.stage.size
    return Binary(cubin, segment.channel_blocks, *(_reported(log, what) for what in _REPORTS), shared)


def assembly(segment: Segment, compute_capability: tuple[int, int]) -> str:
    """The kernel as PTX, for people and for the assembler."""
    address = types.uint64
    inputs, outputs = segment.contraction.inputs, segment.contraction.outputs
    signature = types.void(types.UniTuple(address, len(inputs)), types.UniTuple(address, len(outputs)), *[address] * 4)
    text, _ = cuda.compile_ptx(
        kernel_of(segment), signature, cc=compute_capability, launch_bounds=(LANES, 1), abi="numba", device=False
    )
    mangled = re.search(r"\.entry\s+(\w+)", text).group(1)
    return text.replace(mangled, ENTRY.decode())


_REPORTS = (r"Used (\d+) registers", r"(\d+) bytes spill stores", r"(\d+) bytes stack frame")


def _reported(log: str, pattern: str) -> int:
    found = re.search(pattern, log)
    if not found:
        raise RuntimeError(f"the CUDA assembler's report lacks {pattern!r}: {log!r}")
    return int(found.group(1))
