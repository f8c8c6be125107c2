"""What a block of the kernel of polynomials does with the sites of a row, as LLVM IR."""

from __future__ import annotations

from functools import partial
from math import gcd
from typing import TYPE_CHECKING, NamedTuple

from llvmlite import ir

from ..body import Arithmetic
from ..polynomial import Element
from ..powers import Powers
from . import ptx, vectors
from .loops import Loop
from .ptx import GLOBAL, I32, I64, SHARED
from .staging import LANES, WIDE

if TYPE_CHECKING:
    from .powers_parts import PowersParts


class _Sites(NamedTuple):
    """Sites that a warp walks: those at positions first, first + step, ... below stop. The lane has a place for the
    first one, and after so many places one for the next."""

    first: ir.Value
    stop: ir.Value
    step: int
    place: ir.Value
    places: int


class Emitted:
    """Emits what a warp does with the sites of a row."""

    def __init__(
        self,
        parts: PowersParts,
        builder,
        inputs,
        outputs,
        sums,
        memory,
        edges,
        node,
        row,
        begin,
        end,
        channel,
        warp,
        lane,
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
        known = self._coefficients(parts.chunks[0])  # on their way while the sites are
        self._each_site(sites, self._fetch)
        stored: set[Element] = set()
        for number, chunk in enumerate(parts.chunks):
            known = known if number == 0 else self._coefficients(chunk)
            self._chunk(chunk, known, sites, stored)
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
                self._write_sums(self._chunk(chunk, self._coefficients(chunk), sites, set()), is_first)
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

    def _chunk(
        self, chunk: Powers, known: dict[Element, ir.Value], sites: _Sites, stored: set[Element]
    ) -> dict[Element, ir.Value]:
        """The chunk's share of what is written for these sites, to shared memory, where earlier chunks have one in
        those that are `stored`. Its coefficients are `known`. Returns what is summed over the sites."""
        parts, builder = self.parts, self.builder
        places = [entry.coefficient for entry in chunk.entries]
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

        chunk.evaluate(parts.contraction, read, totals, self.arithmetic)
        for element, total in totals.items():
            if not parts.is_coefficient(element[0]):
                slot = self._slot(place, "written", element)
                builder.store(builder.fadd(builder.load(slot), total) if element in stored else total, slot)
                stored.add(element)
        _, *results = walk.close([self._next(place, sites), *[totals[element] for element in summed]])
        return dict(zip(summed, results, strict=True))

    def _coefficients(self, chunk: Powers) -> dict[Element, ir.Value]:
        """The lane's coefficients that a chunk reads, in registers."""
        parts, builder = self.parts, self.builder
        known = {}
        for name in filter(parts.is_coefficient, parts.contraction.inputs):
            row = self._row(self.inputs, parts.contraction.inputs, name, self.node)
            for entry in chunk.entries:
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
