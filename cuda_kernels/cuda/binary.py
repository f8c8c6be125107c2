"""What is kept of a compiled CUDA kernel. Loading one needs neither numba nor a compiler."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ..elf import section

ENTRY = b"contraction"
FOLD_WARPS, FOLD_BLOCKS = 16, 264
"""Warps of a block of the folding kernel, and the most blocks: two for each multiprocessor of an H100, because in most
graphs they find nothing to do (H200, forward of mace-large: 0.13 of 0.96 ms went to 18,000 idle blocks)."""
GATE_THREADS = 256
"""Threads of a block of the kernels of gates."""
MINIMUM_CAPABILITY = (8, 0)
"""The first architecture with asynchronous copies to shared memory."""

# From the file format of CUDA machine code (ELF): attributes of section .nv.info, as `cuobjdump -elf` names them.
_REGISTERS, _STACK = 0x2F, 0x12  # EIATTR_REGCOUNT, EIATTR_MIN_STACK_SIZE: (symbol, number)
_WITH_SIZE = 4  # EIFMT_SVAL: the attribute's bytes follow their count


@dataclass(frozen=True)
class Binary:
    """Machine code of one segment, and what it takes to run.

    Attributes:
        cubin: machine code for one architecture; its kernel is named `ENTRY`.
        channel_parts: blocks that share out the channels of a row.
        block: its dimensions; the last one is its rows.
        shared_bytes: a block's.
        together: successive rows that are walked as one where they are of one node; a block has so many for each of
            its own.
    """

    cubin: bytes
    channel_parts: int
    block: tuple[int, int, int]
    shared_bytes: int
    together: int = 1

    @property
    def registers(self) -> int:
        """A thread's registers."""
        return self._attribute(_REGISTERS)

    @property
    def stack_bytes(self) -> int:
        """A thread's local memory: more than none if its numbers did not fit its registers."""
        return self._attribute(_STACK)

    def _attribute(self, wanted: int) -> int:
        """The largest of the kernel and of functions that it calls, such as divisions."""
        information, at, found = section(self.cubin, b".nv.info"), 0, []
        while at < len(information):
            layout, attribute, size = struct.unpack_from("<BBH", information, at)
            if layout == _WITH_SIZE and attribute == wanted:
                found.append(struct.unpack_from("<II", information, at + 4)[1])
            at += 4 + size if layout == _WITH_SIZE else 4
        if not found:
            raise RuntimeError(f"the machine code's description lacks attribute {wanted:#x}")
        return max(found)
