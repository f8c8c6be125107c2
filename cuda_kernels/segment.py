"""A segment: paths that one kernel does, and what that takes of registers and shared memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from .polynomial import Contraction, kind, unit_scale
from .problem import Block, Path, Problem
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
seldom spill; where they are too few, `cuda_kernel.compile_pass` cuts finer."""


def warp_bytes(compute_capability: tuple[int, int], occupancy: int) -> int:
    """Shared memory for each of `occupancy` warps on a multiprocessor, where a block's first KB is the system's."""
    return (MULTIPROCESSOR_BYTES.get(compute_capability, 100) - occupancy) * 1024 // occupancy


@dataclass(frozen=True)
class Segment:
    """Some paths of one multiplicity, done by one kernel: a block of warps for each row, a warp for 32 channels.

    Attributes:
        paths: indices into the problem's paths.
        occupancy: warps of a multiprocessor that its registers and shared memory are shared out to.
        in_shared: whether the owned rows' inputs wait in shared memory, read for each edge, and not in registers.
        adds: owner blocks that an earlier segment has already written, to which this one adds.
        first: whether no segment comes before this one.
    """

    problem: Problem
    contraction: Contraction
    owner: str
    paths: tuple[int, ...]
    compute_capability: tuple[int, int]
    occupancy: int = MAX_WARPS
    in_shared: bool = False
    adds: frozenset[int] = frozenset()
    first: bool = True

    @property
    def multiplicity(self) -> int:
        return self.problem.multiplicity(self.problem.paths[self.paths[0]])

    @property
    def channel_blocks(self) -> int:
        return -(-self.multiplicity // LANES)

    @property
    def masked(self) -> bool:
        """Whether the last warp has lanes without a channel."""
        return self.multiplicity % LANES != 0

    def blocks(self, of: str) -> list[int]:
        """The blocks of rows of this kind that the paths touch."""
        return sorted({self.problem.paths[n].block(of) for n in self.paths} - {None})

    def elements(self, operand: str) -> list[tuple[str, int, int]]:
        """(operand, block, component) of every number of a channel that the paths touch."""
        blocks = self.problem.row(kind(operand)).blocks
        return [(operand, block, i) for block in self.blocks(kind(operand)) for i in range(blocks[block].dim)]

    @cached_property
    def owned_inputs(self) -> list[tuple[str, int, int]]:
        return [e for operand in self.contraction.inputs if kind(operand) == self.owner for e in self.elements(operand)]

    @cached_property
    def owned_outputs(self) -> list[tuple[str, int, int]]:
        return [
            e for operand in self.contraction.outputs if kind(operand) == self.owner for e in self.elements(operand)
        ]

    @cached_property
    def edge_outputs(self) -> list[tuple[str, int, int]]:
        return [
            e for operand in self.contraction.outputs if kind(operand) != self.owner for e in self.elements(operand)
        ]

    @cached_property
    def scales(self) -> dict[int, float]:
        """Factors of the owned rows' blocks, taken out of the paths' coefficients: a multiplication a node instead of
        an edge. Only rows of g are scaled, because their blocks have few paths."""
        if self.owner != "g":
            return {}
        return {b: unit_scale(p for p in self.problem.paths if p.out == b) for b in self.blocks("g")}

    @cached_property
    def scaled_paths(self) -> list[Path]:
        """The paths, their coefficients divided by the scale of the block that they lead to."""
        return [
            _divided(path, self.scales.get(path.out, 1.0)) for path in map(self.problem.paths.__getitem__, self.paths)
        ]

    @cached_property
    def stage(self) -> Stage:
        staged = [operand for operand in self.contraction.inputs if kind(operand) != self.owner]
        return plan(self.problem, self.multiplicity, {operand: self.blocks(kind(operand)) for operand in staged})

    @property
    def stages(self) -> int:
        return max(2, min(MAX_STAGES, self._room // max(1, self.stage.size)))

    @property
    def _room(self) -> int:
        """Bytes of a warp for its stages."""
        others = self.scratch_bytes + self.kept_bytes + 2 * self.batch_bytes // self.warps
        return warp_bytes(self.compute_capability, self.occupancy) - others

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
    def feature_starts(self) -> dict[int, tuple[str, int]]:
        """For each gradient of the edge features, the number of its first element in `feature_elements`: the operand
        and the place in its row. The first segment writes whole rows."""
        starts, number = {}, 0
        for operand in self.contraction.outputs:
            if kind(operand) == "y":
                places = [self._place(*element) for element in self.elements(operand)]
                first, last = (0, self.problem.y.length - 1) if self.first else (min(places), max(places))
                starts[number] = operand, first
                number += last + 1 - first
        return starts

    @cached_property
    def feature_elements(self) -> list[tuple[str, int, int] | None]:
        """The gradients of the edge features that this segment writes; None where none of its paths contribute."""
        result = []
        for operand, first in self.feature_starts.values():
            by_place = {self._place(*element): element for element in self.elements(operand)}
            end = self.problem.y.length if self.first else max(by_place) + 1
            result += [by_place.get(place) for place in range(first, end)]
        return result

    @property
    def features(self) -> int:
        return len(self.feature_elements)

    def _place(self, operand: str, block: int, component: int) -> int:
        shape = self.problem.row(kind(operand)).blocks[block]
        return shape.offset + component * shape.component_stride

    @cached_property
    def scratch_bytes(self) -> int:
        blocks = [self.problem.row(self.far).blocks[b] for b in self.blocks(self.far)] if self.edge_outputs else []
        transposed = LANES * self.problem.item_bytes * max((b.dim for b in blocks if self.transposes(b)), default=0)
        return max(transposed, min(self.features, LANES) * lane_row_bytes(self.problem.item_bytes))

    def transposes(self, block: Block) -> bool:
        """Whether the far rows' gradients are put in the order of a row before they are added to it: a lane's numbers
        lie apart in memory, and additions to neighbouring places are ten times as fast (H200: 0.42 and 4.4 ms for
        353,280 rows of 1,152 numbers)."""
        return block.channel_stride == block.dim > 1 and not self.masked

    @property
    def registers(self) -> int:
        """An estimate: what lives across edges, what lives across the paths of an edge, and temporaries."""
        per_path = max(len(self.problem.paths[n].coefficients) for n in self.paths) // 4
        edge_inputs = [
            e for operand in self.contraction.inputs if kind(operand) == self.far for e in self.elements(operand)
        ]
        edge_features = sum(
            len(self.elements(o)) for o in (*self.contraction.inputs, *self.contraction.outputs) if kind(o) == "y"
        )
        far_outputs = [e for e in self.edge_outputs if kind(e[0]) == self.far]
        live = (
            (0 if self.in_shared else len(self.owned_inputs))
            + len(self.owned_outputs)
            + len(edge_inputs)
            + len(far_outputs)
            + edge_features
            + per_path
        )
        temporaries = GRADIENT_TEMPORARIES if self.edge_outputs else TEMPORARIES
        temporaries += SHARED_TEMPORARIES if self.in_shared else 0
        return live * self.problem.item_bytes // 4 + temporaries

    @property
    def denser(self) -> Segment | None:
        """The same for more warps at a time, if it may do with the registers that these leave it."""
        likely = self.registers * MORE_WARPS <= 1.2 * REGISTERS * MAX_WARPS
        other = replace(self, occupancy=MORE_WARPS)
        return other if likely and other.stages > 2 else None

    @property
    def far(self) -> str:
        """The kind of rows at the edges' other ends."""
        return "x" if self.owner == "g" else "g"

    def describe(self) -> str:
        return (
            f"{self.contraction.spec} by {self.owner}: {len(self.paths)} paths, {self.multiplicity} channels, "
            f"{self.stages} stages of {self.stage.size} B, {len(self.owned_inputs)} + {len(self.owned_outputs)} "
            f"numbers kept a lane, about {self.registers} registers"
        )


def _divided(path: Path, scale: float) -> Path:
    return replace(path, coefficients=tuple((i, j, k, c / scale) for i, j, k, c in path.coefficients))
