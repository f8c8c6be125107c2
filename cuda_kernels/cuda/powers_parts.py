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
from .staging import LANES, WIDE

MOST_SITES = 8
"""Of a warp at a time."""


SHARED_BYTES = 216 * 1024
"""Of a multiprocessor, for all of its blocks."""


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

    In shared memory a warp has for each of its sites the numbers of all operands that have a row for each site, those
    that are read and then those that are written; a number is a row of lanes.
    """

    def __init__(self, problem: Problem, contraction: Contraction, shape: Shape):
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
        kept = sum(map(self.is_coefficient, (*contraction.inputs, *contraction.outputs))) * self.item // 4
        self.chunks = chunks(problem, max(1, shape.coefficients // kept))
        most = max(sum(len(monomial.entries) for monomial in chunk) for chunk in self.chunks)
        self.lane_bytes = LANES * self.item
        self.sum_bytes = most * self.lane_bytes if self.summed else 0
        self.site_bytes = len(self.slots) * self.lane_bytes
        room = SHARED_BYTES // (shape.blocks * shape.warps) - self.sum_bytes
        self.sites = max(1, min(MOST_SITES, room // self.site_bytes))
        self.warp_bytes = self.sites * self.site_bytes
        self.channels = problem.multiplicity(problem.paths[0])
        self.channel_parts = -(-self.channels // LANES)

    @property
    def shared_bytes(self) -> int:
        return self.warps * (self.warp_bytes + self.sum_bytes)

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


class _Emitted:
    """Emits what a warp does with the sites of a row."""

    def __init__(
        self, parts, builder, inputs, outputs, sums, memory, edges, node, row, begin, end, channel, warp, lane
    ):
        self.parts, self.builder, self.problem = parts, builder, parts.problem
        self.inputs, self.outputs, self.sums, self.edges = inputs, outputs, sums, edges
        self.node, self.row, self.begin, self.end, self.warp, self.lane = node, row, begin, end, warp, lane
        self.arithmetic = Arithmetic(builder, parts.problem.dtype)
        self.own = builder.add(memory, builder.mul(warp, I32(parts.warp_bytes)))
        self.own_lane = builder.add(self.own, builder.mul(lane, I32(parts.item)))
        self.scratch = builder.add(memory, I32(parts.warps * parts.warp_bytes))
        own_channel, last = builder.add(channel, lane), I32(parts.channels - 1)
        self.exists = None if parts.channels % LANES == 0 else builder.icmp_unsigned("<=", own_channel, last)
        self.channel = own_channel if self.exists is None else builder.select(self.exists, own_channel, last)

    def emit(self) -> None:
        """Rounds of as many sites as the block has room for; one at least, so that sums are written."""
        parts, builder = self.parts, self.builder
        all_sites = I32(parts.warps * parts.sites)
        stop = self.end
        if parts.summed:
            after = builder.add(self.begin, I32(1))
            stop = builder.select(builder.icmp_unsigned("<", self.end, after), after, self.end)
        rounds = Loop(builder, self.begin, stop, all_sites)
        first = builder.add(rounds.index, self.warp)
        self._each_site(first, self._fetch)
        stored: set[Element] = set()
        for chunk in parts.chunks:
            self._chunk(chunk, first, rounds.index, stored)
        self._each_site(first, partial(self._write, stored))
        rounds.close()

    def _each_site(self, first, do) -> None:
        """do(position, the lane's place of the site) for the warp's sites of a round."""
        sites, place = self._sites(first, [])
        do(sites.index, place)
        sites.close([self._next(place)])

    def _sites(self, first, carried: list) -> tuple[Loop, ir.Value]:
        """A loop over the warp's sites of a round, which also carries the lane's place of the site."""
        parts, builder = self.parts, self.builder
        stop = builder.add(first, I32(parts.warps * (parts.sites - 1) + 1))
        stop = builder.select(builder.icmp_unsigned("<", stop, self.end), stop, self.end)
        sites = Loop(builder, first, stop, I32(parts.warps), [self.own_lane, *carried])
        return sites, sites.carried[0]

    def _next(self, place):
        return self.builder.add(place, I32(self.parts.site_bytes))

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

    def _chunk(self, chunk: tuple[Monomial, ...], first, start, stored: set[Element]) -> None:
        """The chunk's share of all sums of the warp's sites; `stored` are those that earlier chunks have a share in."""
        parts, builder = self.parts, self.builder
        known = self._coefficients(chunk)
        places = [entry.coefficient for monomial in chunk for entry in monomial.entries]
        summed = [(name, *place) for name in parts.summed for place in places]
        zero = ir.Constant(parts.scalar, 0.0)
        sites, place = self._sites(first, [zero] * len(summed))
        values: dict[Element, ir.Value] = {}
        totals = dict(zip(summed, sites.carried[1:], strict=True))

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
        results = sites.close([self._next(place), *[totals[element] for element in summed]])
        if summed:
            self._write_sums(len(places), places[0], results[1:], start)

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

    def _write_sums(self, count: int, first: tuple[int, int], values: list[ir.Value], start) -> None:
        """Sums over a row's sites, such as gradients by coefficients: those of all warps, and of earlier rounds. The
        coefficients of a chunk lie one after the other."""
        parts, builder = self.parts, self.builder
        own = builder.add(self.scratch, builder.mul(self.warp, I32(parts.sum_bytes)))
        own = builder.add(own, builder.mul(self.lane, I32(parts.item)))
        for n, name in enumerate(parts.summed):
            ptx.synchronize_block(builder)
            for m, value in enumerate(values[n * count : (n + 1) * count]):
                place = builder.add(own, I32(m * parts.lane_bytes))
                builder.store(value, builder.inttoptr(place, ir.PointerType(parts.scalar, SHARED)))
            ptx.synchronize_block(builder)
            block, component = first
            row = self._row(self.sums, parts.contraction.outputs, name, self.row)
            row = builder.add(row, self._offset((name, block, component)))
            step = self.problem.row(name).blocks[block].component_stride * parts.item
            each = Loop(builder, self.warp, I32(count), I32(parts.warps))
            place = builder.add(self.scratch, builder.mul(each.index, I32(parts.lane_bytes)))
            place = builder.add(place, builder.mul(self.lane, I32(parts.item)))
            total = None
            for warp in range(parts.warps):
                at = builder.add(place, I32(warp * parts.sum_bytes))
                one = builder.load(builder.inttoptr(at, ir.PointerType(parts.scalar, SHARED)))
                total = self.arithmetic.add(one, total)
            address = builder.add(row, builder.mul(builder.zext(each.index, I64), I64(step)))
            pointer = builder.inttoptr(address, ir.PointerType(parts.scalar, GLOBAL))
            with builder.if_then(ir.IntType(1)(1) if self.exists is None else self.exists):
                is_first = builder.icmp_unsigned("==", start, self.begin)
                with builder.if_else(is_first) as (once, again):
                    with once:
                        builder.store(total, pointer)
                    with again:
                        builder.store(builder.fadd(builder.load(pointer), total), pointer)
            each.close()

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
