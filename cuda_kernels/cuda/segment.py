"""A segment: paths that one kernel does, how it is launched, and what that takes of registers and shared memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from ..problem import Block
from .path_group import PathGroup
from .staging import LANES, WIDE, Stage, lane_row_bytes, plan

MULTIPROCESSOR_BYTES = {(8, 0): 164, (8, 7): 164, (9, 0): 228, (10, 0): 228, (10, 3): 228}
"""KB of shared memory (CUDA's table of compute capabilities); 100 on all others from 8.6 on."""
MAX_STAGES = 4
"""Edges in flight and in use. mace-large on an H200 with 2, 3 and 4: forward 1.03, 0.90, 0.88 ms."""
BLOCK_WARPS = 4
"""Warps of a block where they need not wait for each other. H200, liquid, forward: nequip-aspirin, whose rows take two
warps, with 1, 2 and 4 rows 0.33, 0.30, 0.29 ms; mace-large, whose rows take four, with 1 and 2 rows 0.98, 1.02 ms."""
MAX_WARPS = 8
"""Warps of a block. With 255 registers a thread, no more fit a multiprocessor."""
MORE_WARPS = 12
"""Warps of a multiprocessor if two thirds of the registers are enough. H200, double backward of mace-medium: 1.54 ms
with 8 warps, 1.42 with 12; forward and backward do not care."""
BATCH = 8
"""Edges whose features' gradients are summed over the warps of a block at a time."""
REGISTERS = 255
"""The most that a thread can have (every CUDA architecture since 3.5)."""
TEMPORARIES = 52
"""Registers left for addresses and products."""
GRADIENT_TEMPORARIES = 76
"""The same where there are gradients of an edge to hold on to."""
SHARED_TEMPORARIES = 18
"""Further ones where the owned rows' inputs wait in shared memory. With these three, the named problems in float32
seldom spill; where they are too few, `kernel.compile_pass` cuts finer."""


def shared_bytes(compute_capability: tuple[int, int], count: int) -> int:
    """Shared memory for each of so many blocks on a multiprocessor, which may be of a warp each. A block's first KB is
    the system's."""
    return (MULTIPROCESSOR_BYTES.get(compute_capability, 100) - count) * 1024 // count


@dataclass(frozen=True)
class Segment(PathGroup):
    """Paths, done by one kernel: a block of warps for each row, a warp for 32 channels.

    Attributes:
        occupancy: warps of a multiprocessor that its registers and shared memory are shared out to.
        in_shared: whether the owned rows' inputs wait in shared memory, read for each edge, and not in registers.
    """

    compute_capability: tuple[int, int]
    occupancy: int = MAX_WARPS
    in_shared: bool = False

    @property
    def channel_blocks(self) -> int:
        return -(-self.multiplicity // LANES)

    @property
    def masked(self) -> bool:
        """Whether the last warp has lanes without a channel."""
        return self.multiplicity % LANES != 0

    @cached_property
    def stage(self) -> Stage:
        staged = [name for name in self.contraction.inputs if not self.is_owned(name)]
        return plan(self.problem, self.multiplicity, {name: self.blocks(name) for name in staged})

    @property
    def stages(self) -> int:
        return max(2, min(MAX_STAGES, self._room // max(1, self.stage.size)))

    @property
    def _room(self) -> int:
        """Bytes of a warp for its stages."""
        others = self.scratch_bytes + self.kept_bytes + 2 * self.batch_bytes // self.warps
        return shared_bytes(self.compute_capability, self.occupancy) - others

    @property
    def fits(self) -> bool:
        """Whether two stages fit the shared memory."""
        return 2 * self.stage.size <= self._room

    @property
    def warps(self) -> int:
        """Warps of a row in one block, which divide its channels evenly: as many as may be where gradients of edge
        features are summed over the channels."""
        most = MAX_WARPS if self.features else BLOCK_WARPS
        return max(n for n in range(1, most + 1) if self.channel_blocks % n == 0)

    @property
    def rows(self) -> int:
        """Rows of a block. Several nodes often share neighbours, which are then read from the L1 cache; but where the
        warps of a row wait for each other, other rows had better not wait with them."""
        return 1 if self.features else BLOCK_WARPS // self.warps

    @property
    def channel_parts(self) -> int:
        """Blocks that share out the channels of a row."""
        return 1 if self.features else self.channel_blocks // self.warps

    @property
    def blocks_at_once(self) -> int:
        """Blocks on a multiprocessor for which the assembler must spare registers."""
        return max(1, self.occupancy // (self.warps * self.rows))

    @property
    def ring_bytes(self) -> int:
        return self.stages * self.stage.size

    @property
    def warp_bytes(self) -> int:
        """Shared memory of a warp: the ring of stages, the owned rows' inputs, and room to put gradients in another
        order."""
        return self.ring_bytes + self.kept_bytes + self.scratch_bytes

    @property
    def kept_bytes(self) -> int:
        return LANES * self.problem.item_bytes * len(self.owned_inputs) if self.in_shared else 0

    @property
    def batch_bytes(self) -> int:
        """Shared memory for the gradients of a batch of edges' features, of all warps."""
        return -(-BATCH * self.warps * self.features * self.problem.item_bytes // WIDE) * WIDE

    @property
    def row_bytes(self) -> int:
        """Shared memory of a row: two batches, one being filled and one being written, and its warps'."""
        return 2 * self.batch_bytes + self.warps * self.warp_bytes

    @cached_property
    def scratch_bytes(self) -> int:
        written = [name for name in self.contraction.outputs if self.is_far(name) or self.is_stored(name)]
        blocks = [self.problem.row(name).blocks[b] for name in written for b in self.blocks(name)]
        transposed = LANES * self.problem.item_bytes * max((b.dim for b in blocks if self.transposes(b)), default=0)
        return max(transposed, min(self.features, LANES) * lane_row_bytes(self.problem.item_bytes))

    def transposes(self, block: Block) -> bool:
        """Whether gradients are put in the order of a row before they are added to it or stored: a lane's numbers lie
        apart in memory, and additions to neighbouring places are ten times as fast (H200: 0.42 and 4.4 ms for 353,280
        rows of 1,152 numbers)."""
        return block.channel_stride == block.dim > 1 and not self.masked

    @property
    def registers(self) -> int:
        """An estimate: what lives across edges, what lives across the paths of an edge, and temporaries."""
        live = len(self.owned_outputs) + (0 if self.in_shared else len(self.owned_inputs))
        live += sum(
            len(self.elements(n)) for n in (*self.contraction.inputs, *self.contraction.outputs) if self._lives(n)
        )
        live += max(len(self.problem.paths[n].coefficients) for n in self.paths) // 4
        temporaries = GRADIENT_TEMPORARIES if self.edge_outputs else TEMPORARIES
        temporaries += SHARED_TEMPORARIES if self.in_shared else 0
        return live * self.problem.item_bytes // 4 + temporaries

    def _lives(self, name: str) -> bool:
        """Whether several paths of an edge use its numbers."""
        return self.is_far(name) or self.is_feature(name) or (self.is_stored(name) and self.problem.is_summed(name))

    @property
    def denser(self) -> Segment | None:
        """The same for more warps at a time, if it may do with the registers that these leave it."""
        likely = self.registers * MORE_WARPS <= 1.2 * REGISTERS * MAX_WARPS
        other = replace(self, occupancy=MORE_WARPS)
        return other if likely and other.stages > 2 else None

    def describe(self) -> str:
        """A line about it, for people."""
        return (
            f"{self.contraction.spec} by {self.by}: {len(self.paths)} paths, {self.multiplicity} channels, "
            f"{self.stages} stages of {self.stage.size} B, {len(self.owned_inputs)} + {len(self.owned_outputs)} "
            f"numbers kept a lane, about {self.registers} registers"
        )
