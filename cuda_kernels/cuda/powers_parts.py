"""The part of the kernel of polynomials that is generated, as a numba intrinsic that emits LLVM IR."""

from __future__ import annotations

from typing import NamedTuple

from numba.cuda import types
from numba.cuda.extending import intrinsic

from ..body import SCALAR
from ..contraction import Contraction
from ..polynomial import Element
from ..powers import Powers, powers
from ..problem import COEFFICIENT, Problem, base
from .lists import Lists
from .powers_sites import Emitted
from .segment import shared_bytes
from .staging import LANES

MOST_BYTES = 216 * 1024
"""Of a multiprocessor's shared memory: the rest is its cache."""
MOST_SITES = 8
"""Of a block at a time, for each of its warps."""


class Shape(NamedTuple):
    """Numbers of a chunk that wait in registers, warps of a block, and blocks that a multiprocessor runs at a time."""

    coefficients: int
    warps: int
    blocks: int


def has_sums(problem: Problem, contraction: Contraction) -> bool:
    """Whether numbers are summed over the sites of a target."""
    return any(base(name) == problem.form[COEFFICIENT] for name in contraction.outputs)


class PowersParts(Lists):
    """What `powers.kernel_of` is written with.

    A site has in shared memory the numbers of all operands that have a row for each site, those that are read and then
    those that are written; a number is a row of lanes. A contraction either writes such operands, and warps have sites
    of their own, or sums over sites, and all warps share them.

    Args:
        together: rows that a block walks, those of one node as one.

    Raises:
        ValueError: the contraction has outputs of both kinds.
    """

    def __init__(
        self,
        problem: Problem,
        contraction: Contraction,
        shape: Shape,
        compute_capability: tuple[int, int],
        together: int = 1,
    ):
        super().__init__(problem)
        self.contraction, self.shape, self.warps = contraction, shape, shape.warps
        self.scalar, self.number, self.item = SCALAR[problem.dtype], getattr(types, problem.dtype), problem.item_bytes
        self.read = [name for name in contraction.inputs if not self.is_coefficient(name)]
        self.written = [name for name in contraction.outputs if not self.is_coefficient(name)]
        self.summed = [name for name in contraction.outputs if self.is_coefficient(name)]
        self.slots: dict[tuple[str, Element], int] = {}
        for use, names in (("read", self.read), ("written", self.written)):
            for element in self.elements(names):
                self.slots[use, element] = len(self.slots)
        if self.written and self.summed:
            raise ValueError(f"contraction: {contraction.spec} has outputs of sites and sums over them; split it")
        self.together = together
        kept = sum(map(self.is_coefficient, (*contraction.inputs, *contraction.outputs))) * self.item // 4
        self.chunks = self._chunks(max(1, shape.coefficients // kept))
        self.lane_bytes = LANES * self.item
        self.site_bytes = len(self.slots) * self.lane_bytes
        room, most = shared_bytes(compute_capability, shape.blocks), MOST_SITES * shape.warps
        room = min(room, MOST_BYTES // shape.blocks)
        self.sites = max(1, min(most, room // self.site_bytes) // self.sharing)
        self.channels = problem.multiplicity(problem.paths[0])
        self.channel_parts = -(-self.channels // LANES)

    @property
    def sharing(self) -> int:
        """Warps that share out the sites of a block."""
        return 1 if self.summed else self.warps

    @property
    def shared_bytes(self) -> int:
        return self.sharing * self.sites * self.site_bytes

    def _chunks(self, coefficients: int) -> list[Powers]:
        """Of so many coefficients at most, about; where warps share them out, as many for each."""
        whole = powers(self.problem, self.contraction)
        found = whole.divided(coefficients)
        if not self.summed:
            return found
        rounds = -(-len(found) // self.warps)
        fewest = -(-len(list(whole.entries)) // (rounds * self.warps))
        even = map(whole.divided, range(fewest, coefficients + 1))
        return next((each for each in even if len(each) <= rounds * self.warps), found)

    def is_coefficient(self, name: str) -> bool:
        return base(name) == self.problem.form[COEFFICIENT]

    def elements(self, names: list[str]) -> list[Element]:
        """Of the blocks that monomials have a part in."""
        return [
            (name, block, i)
            for name in names
            for block in self.problem.blocks(name)
            for i in range(self.problem.row(name).blocks[block].dim)
        ]

    def contract_sites(self):
        """(inputs, outputs, where sums go, shared memory, edges, node, row of sums, begin, end, channel, warp, lane):
        all outputs' shares of the sites at positions begin to end, for the lane's channel."""
        words = [types.uint32] * 2

        @intrinsic
        def contract_sites(typingctx, inputs, outputs, sums, memory, edges, node, row, begin, end, channel, warp, lane):
            def codegen(context, builder, signature, arguments):
                Emitted(self, builder, *arguments).emit()
                return context.get_dummy_value()

            arguments = inputs, outputs, sums, types.uint32, types.uint64, *words, *words, *words, types.uint32
            return types.void(*arguments), codegen

        return contract_sites
