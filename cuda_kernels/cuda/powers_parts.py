"""The part of the kernel of polynomials that is generated, as a numba intrinsic that emits LLVM IR."""

from __future__ import annotations

from functools import partial
from math import gcd
from typing import NamedTuple

from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import intrinsic

from ..body import SCALAR, Arithmetic
from ..contraction import Contraction
from ..polynomial import Element
from ..powers import Monomial, chunks, evaluate
from ..problem import COEFFICIENT, Problem, base
from . import ptx, vectors
from .lists import Lists
from .loops import Loop
from .ptx import GLOBAL, I32, I64, SHARED
from .segment import shared_bytes
from .staging import LANES, WIDE

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

    def _chunks(self, coefficients: int) -> list[tuple[Monomial, ...]]:
        """Of so many coefficients at most, about; where warps share them out, as many for each."""
        found = chunks(self.problem, coefficients)
        if not self.summed:
            return found
        rounds = -(-len(found) // self.warps)
        count = sum(len(monomial.entries) for chunk in found for monomial in chunk)
        fewest = -(-count // (rounds * self.warps))
        even = (chunks(self.problem, size) for size in range(fewest, coefficients + 1))
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
                _Emitted(self, builder, *arguments).emit()
                return context.get_dummy_value()

            arguments = inputs, outputs, sums, types.uint32, types.uint64, *words, *words, *words, types.uint32
            return types.void(*arguments), codegen

        return contract_sites


class _Sites(NamedTuple):
    """Sites that a warp walks: those at positions first, first + step, ... below stop. The lane has a place for the
    first one, and after so many places one for the next."""

    first: ir.Value
    stop: ir.Value
    step: int
    place: ir.Value
    places: int


class _Emitted:
    """Emits what a warp does with the sites of a row."""

    def __init__(
        self, parts, builder, inputs, outputs, sums, memory, edges, node, row, begin, end, channel, warp, lane
    ):
        self.parts, self.builder, self.problem = parts, builder, parts.problem
        self.inputs, self.outputs, self.sums, self.edges = inputs, outputs, sums, edges
        self.node, self.row, self.begin, self.end, self.warp, self.lane = node, row, begin, end, warp, lane
        self.arithmetic = Arithmetic(builder, parts.problem.dtype)
        self.lane_place = builder.add(memory, builder.mul(lane, I32(parts.item)))
        own_channel, last = builder.add(channel, lane), I32(parts.channels - 1)
        self.exists = None if parts.channels % LANES == 0 else builder.icmp_unsigned("<=", own_channel, last)
        self.channel = own_channel if self.exists is None else builder.select(self.exists, own_channel, last)

    def emit(self) -> None:
        """Rounds of as many sites as the block has room for; one at least, so that sums are written."""
        if self.parts.summed:
            self._sums()
        else:
            self._numbers_of_sites()

    def _numbers_of_sites(self) -> None:
        parts, builder = self.parts, self.builder
        rounds = Loop(builder, self.begin, self.end, I32(parts.warps * parts.sites))
        first = builder.add(rounds.index, self.warp)
        own = builder.add(self.lane_place, builder.mul(self.warp, I32(parts.sites * parts.site_bytes)))
        sites = _Sites(first, self._before(first, parts.warps * (parts.sites - 1) + 1), parts.warps, own, 1)
        self._each_site(sites, self._fetch)
        stored: set[Element] = set()
        for chunk in parts.chunks:
            self._chunk(chunk, sites, stored)
        self._each_site(sites, partial(self._write, stored))
        rounds.close()

    def _sums(self) -> None:
        """All warps bring the sites of a round to shared memory, and each sums its chunks over all of them."""
        parts, builder = self.parts, self.builder
        after = builder.add(self.begin, I32(1))
        stop = builder.select(builder.icmp_unsigned("<", self.end, after), after, self.end)
        rounds = Loop(builder, self.begin, stop, I32(parts.sites))
        last = self._before(rounds.index, parts.sites)
        own = builder.add(self.lane_place, builder.mul(self.warp, I32(parts.site_bytes)))
        ptx.synchronize_block(builder)  # the sites of the round before have been read
        first = builder.add(rounds.index, self.warp)
        self._each_site(_Sites(first, last, parts.warps, own, parts.warps), self._fetch)
        ptx.synchronize_block(builder)
        sites = _Sites(rounds.index, last, 1, self.lane_place, 1)
        is_first = builder.icmp_unsigned("==", rounds.index, self.begin)
        for number, chunk in enumerate(parts.chunks):
            with builder.if_then(builder.icmp_unsigned("==", self.warp, I32(number % parts.warps))):
                self._write_sums(self._chunk(chunk, sites, set()), is_first)
        rounds.close()

    def _before(self, first, count: int):
        """The end of so many positions from the first one, or of all."""
        stop = self.builder.add(first, I32(count))
        return self.builder.select(self.builder.icmp_unsigned("<", stop, self.end), stop, self.end)

    def _each_site(self, sites: _Sites, do) -> None:
        """do(position, the lane's place of the site) for these sites."""
        walk, place = self._walk(sites, [])
        do(walk.index, place)
        walk.close([self._next(place, sites)])

    def _walk(self, sites: _Sites, carried: list) -> tuple[Loop, ir.Value]:
        """A loop over sites, which also carries the lane's place of the site."""
        walk = Loop(self.builder, sites.first, sites.stop, I32(sites.step), [sites.place, *carried])
        return walk, walk.carried[0]

    def _next(self, place, sites: _Sites):
        return self.builder.add(place, I32(self.parts.site_bytes * sites.places))

    def _slot(self, place, use: str, element: Element):
        """A pointer to the lane's number in shared memory."""
        place = self.builder.add(place, I32(self.parts.slots[use, element] * self.parts.lane_bytes))
        return self.builder.inttoptr(place, ir.PointerType(self.parts.scalar, SHARED))

    def _fetch(self, position, place) -> None:
        """What a site reads, to shared memory."""
        parts, builder = self.parts, self.builder
        edge = parts._site(builder, self.edges, position)
        for name in parts.read:
            row = self._row(self.inputs, parts.contraction.inputs, name, edge)
            for run in self._runs(name):
                address = builder.add(row, self._offset(run[0]))
                values = vectors.load(builder, address, len(run), parts.scalar, GLOBAL)
                for element, value in zip(run, values, strict=True):
                    builder.store(value, self._slot(place, "read", element))

    def _write(self, stored: set[Element], position, place) -> None:
        """What has been summed for a site, from shared memory; zero where nothing was."""
        parts, builder = self.parts, self.builder
        edge, zero = parts._site(builder, self.edges, position), ir.Constant(parts.scalar, 0.0)
        with builder.if_then(ir.IntType(1)(1) if self.exists is None else self.exists):
            for name in parts.written:
                row = self._row(self.outputs, parts.contraction.outputs, name, edge)
                for run in self._runs(name):
                    values = [
                        builder.load(self._slot(place, "written", element)) if element in stored else zero
                        for element in run
                    ]
                    vectors.store(builder, builder.add(row, self._offset(run[0])), values, GLOBAL)

    def _chunk(self, chunk: tuple[Monomial, ...], sites: _Sites, stored: set[Element]) -> dict[Element, ir.Value]:
        """The chunk's share of what is written for these sites, to shared memory, where earlier chunks have one in
        those that are `stored`. Returns what is summed over them."""
        parts, builder = self.parts, self.builder
        known = self._coefficients(chunk)
        places = [entry.coefficient for monomial in chunk for entry in monomial.entries]
        summed = [(name, *place) for name in parts.summed for place in places]
        zero = ir.Constant(parts.scalar, 0.0)
        walk, place = self._walk(sites, [zero] * len(summed))
        values: dict[Element, ir.Value] = {}
        totals = dict(zip(summed, walk.carried[1:], strict=True))

        def read(element: Element) -> ir.Value:
            if parts.is_coefficient(element[0]):
                return known[element]
            if element not in values:
                values[element] = builder.load(self._slot(place, "read", element))
            return values[element]

        evaluate(chunk, parts.contraction, read, totals, self.arithmetic)
        for element, total in totals.items():
            if not parts.is_coefficient(element[0]):
                slot = self._slot(place, "written", element)
                builder.store(builder.fadd(builder.load(slot), total) if element in stored else total, slot)
                stored.add(element)
        _, *results = walk.close([self._next(place, sites), *[totals[element] for element in summed]])
        return dict(zip(summed, results, strict=True))

    def _coefficients(self, chunk: tuple[Monomial, ...]) -> dict[Element, ir.Value]:
        """The lane's coefficients that a chunk reads, in registers."""
        parts, builder = self.parts, self.builder
        known = {}
        for name in filter(parts.is_coefficient, parts.contraction.inputs):
            row = self._row(self.inputs, parts.contraction.inputs, name, self.node)
            for entry in (entry for monomial in chunk for entry in monomial.entries):
                element = name, *entry.coefficient
                address = builder.add(row, self._offset(element))
                known[element] = builder.load(builder.inttoptr(address, ir.PointerType(parts.scalar, GLOBAL)))
        return known

    def _write_sums(self, sums: dict[Element, ir.Value], is_first) -> None:
        """Sums over a row's sites, such as gradients by coefficients: added to those of earlier rounds."""
        parts, builder = self.parts, self.builder
        rows = {name: self._row(self.sums, parts.contraction.outputs, name, self.row) for name in parts.summed}
        places = {element: builder.add(rows[element[0]], self._offset(element)) for element in sums}
        kind = ir.PointerType(parts.scalar, GLOBAL)
        pointers = {element: builder.inttoptr(place, kind) for element, place in places.items()}
        exists = ir.IntType(1)(1) if self.exists is None else self.exists
        with builder.if_then(exists), builder.if_else(is_first) as (once, again):
            with once:
                for element, total in sums.items():
                    builder.store(total, pointers[element])
            with again:
                for element, total in sums.items():
                    builder.store(builder.fadd(builder.load(pointers[element]), total), pointers[element])

    def _row(self, addresses, names: tuple[str, ...], name: str, number):
        """The address of an operand's row."""
        start = self.builder.extract_value(addresses, names.index(name))
        size = self.problem.row(name).length * self.parts.item
        return self.builder.add(start, self.builder.mul(self.builder.zext(number, I64), I64(size)))

    def _offset(self, element: Element):
        """Where in a row the lane's number of an element begins, in bytes."""
        block = self.problem.row(element[0]).blocks[element[1]]
        number = self.builder.mul(self.channel, I32(block.channel_stride * self.parts.item))
        constant = (block.offset + element[2] * block.component_stride) * self.parts.item
        return self.builder.add(self.builder.zext(number, I64), I64(constant))

    def _runs(self, name: str) -> list[list[Element]]:
        """The operand's elements, those together that lie side by side where 16 bytes at most begin at a multiple."""
        row, unit = self.problem.row(name), WIDE // self.parts.item
        runs: list[list[Element]] = []
        last = None
        for element in self.parts.elements([name]):
            block = row.blocks[element[1]]
            number = block.offset + element[2] * block.component_stride
            steps = gcd(block.channel_stride, row.length)
            fits = last == (number - 1, block.channel_stride) and steps % unit == 0 and number % unit != 0
            if fits:
                runs[-1].append(element)
            else:
                runs.append([element])
            last = number, block.channel_stride
        return [part for run in runs for part in _powers_of_two(run)]


def _powers_of_two(run: list[Element]) -> list[list[Element]]:
    """Whole runs of a power of two; others one by one."""
    return [run] if len(run) & (len(run) - 1) == 0 else [[element] for element in run]
