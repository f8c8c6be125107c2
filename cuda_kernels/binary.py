"""What is kept of a compiled CUDA kernel. Loading one needs neither numba nor a compiler."""

from __future__ import annotations

from dataclasses import dataclass

ENTRY = b"convolution"


@dataclass(frozen=True)
class Binary:
    """Machine code of one segment, and what the assembler said of it.

    Attributes:
        cubin: machine code for one architecture; its kernel is named `ENTRY`.
        channel_blocks: warps a node (the grid's second dimension).
        registers, spilled_bytes, stack_bytes: a thread's.
        shared_bytes: a warp's.
    """

    cubin: bytes
    channel_blocks: int
    registers: int
    spilled_bytes: int
    stack_bytes: int
    shared_bytes: int
