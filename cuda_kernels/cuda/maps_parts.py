"""The parts of the kernel of linear maps that each site has for itself, as numba intrinsics that emit LLVM IR."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import intrinsic

from ..body import SCALAR
from ..contraction import Contraction
from ..linear import Step, steps
from ..maps import sums_of
from ..problem import OUT, WEIGHT, Problem, base
from . import ptx
from .lists import Lists
from .loops import Loop
from .maps_path import EmittedPath, Lanes
from .ptx import GLOBAL, I32, I64, SHARED
from .staging import LANES, WIDE


class MapsParts(Lists):
    """What `maps.kernel_of` is written with; each method's docstring is the documentation of the intrinsic that it
    makes. Types are those of `parts.Parts`.

    Sums over a node's edges lie in shared memory: for each output, block, part and component `width` numbers a lane.

    Args:
        rows_ahead: how many times a warp reads rows before it uses the first of them.
    """

    def __init__(self, problem: Problem, contraction: Contraction, rows_ahead: int):
        super().__init__(problem)
        self.contraction, self.rows_ahead = contraction, rows_ahead
        self.scalar, self.number, self.item = SCALAR[problem.dtype], getattr(types, problem.dtype), problem.item_bytes
        self.maps, self.sums = steps(problem), sums_of(contraction)
        self.read = {name for found in self.sums.values() for one in found for name in (one.left, one.right)}
        self.lanes = {block: self._lanes(block) for block in dict.fromkeys(found.target for found in self.maps)}
        self.groups = self._groups()
        self.places, self.sums_bytes = {}, 0
        for name, (block, lanes) in product(self.at(OUT, self.sums), self.lanes.items()):
            self.places[name, block] = self.sums_bytes
            self.sums_bytes += lanes.parts * block.dim * LANES * lanes.width * self.item

    def _groups(self) -> list[list[Step]]:
        """Paths that differ in their places only: one loop serves those of a group."""
        groups: dict[tuple, list[Step]] = {}
        for found in self.maps:
            shape = *(block._replace(offset=0) for block in found[:3]), self.lanes[found.target]
            groups.setdefault(shape, []).append(found)
        return list(groups.values())

    def _lanes(self, block) -> Lanes:
        """For all paths to a block of the output."""
        weight = self.problem.form[WEIGHT]
        width = WIDE // self.problem.stored_bytes(weight)
        numbers = [block.multiplicity, self.problem.row(weight).length]
        for found in self.maps:
            if found.target == block:
                numbers += [found.weights.offset, found.weights.component_stride]
        while any(number % width for number in numbers):
            width //= 2
        groups = block.multiplicity // width
        across = min(LANES, 1 << (groups - 1).bit_length())
        return Lanes(width, across, LANES // across, groups)

    @property
    def has_owned_sums(self) -> bool:
        """Whether a node's sums are written when all of its edges are done."""
        return self.problem.has_graph and bool(self.sums_bytes)

    def contract_sites(self):
        """(inputs, outputs, sums, edges, node, position, end, step, lane): all outputs' shares of the edges at
        position, position + step and so on below end. Without a graph, a site's sums are written at once."""

        @intrinsic
        def contract_sites(typingctx, inputs, outputs, sums, edges, node, position, end, step, lane):
            def codegen(context, builder, signature, arguments):
                inputs, outputs, sums, edges, node, position, end, step, lane = arguments
                self._clear_sums(builder, sums, lane)
                sites = Loop(builder, position, end, step)
                edge = self._site(builder, edges, sites.index)
                self._contract(builder, inputs, outputs, sums, node if self.problem.has_graph else edge, edge, lane)
                if self.sums_bytes and not self.problem.has_graph:
                    ptx.synchronize_warp(builder)
                    self._write_sums(builder, outputs, edge, sums, I32(1), lane, I32(LANES))
                    ptx.synchronize_warp(builder)
                    self._clear_sums(builder, sums, lane)
                sites.close()
                return context.get_dummy_value()

            return types.void(inputs, outputs, types.uint32, types.uint64, *[types.uint32] * 5), codegen

        return contract_sites

    def write_sums(self):
        """(outputs, row, sums, count, thread, threads): the rows of outputs, each number the sum over the lanes of
        `count` warps that have a part in it."""

        @intrinsic
        def write_sums(typingctx, outputs, row, sums, count, thread, threads):
            def codegen(context, builder, signature, arguments):
                self._write_sums(builder, *arguments)
                return context.get_dummy_value()

            return types.void(outputs, *[types.uint32] * 5), codegen

        return write_sums

    def _clear_sums(self, builder, sums, lane) -> None:
        if not self.sums_bytes:
            return
        zeros = ir.Constant(ir.VectorType(self.scalar, WIDE // self.item), None)
        own, end = builder.add(sums, builder.mul(lane, I32(WIDE))), builder.add(sums, I32(self.sums_bytes))
        whole = Loop(builder, own, end, I32(LANES * WIDE))
        builder.store(zeros, builder.inttoptr(whole.index, ir.PointerType(zeros.type, SHARED)), align=WIDE)
        whole.close()
        ptx.synchronize_warp(builder)  # a lane has cleared others' sums

    def _contract(self, builder, inputs, outputs, sums, node, edge, lane) -> None:
        """An edge's share of all outputs."""
        rows = {
            (name, of): self._row(builder, addresses, names, name, node, edge)
            for of, addresses, names in (
                ("read", inputs, self.contraction.inputs),
                ("written", outputs, self.contraction.outputs),
            )
            for name in names
        }
        for alike in self.groups:
            number = Loop(builder, I32(0), I32(len(alike)), I32(1)) if len(alike) > 1 else None
            for part in range(self.lanes[alike[0].target].parts):
                EmittedPath(self, builder, alike, number.index if number else I32(0), part, rows, sums, lane).emit()
            if number:
                number.close()

    def _write_sums(self, builder, outputs, row, sums, count, thread, threads) -> None:
        for (name, block), start in self.places.items():
            lanes = self.lanes[block]
            target = self._row(builder, outputs, self.contraction.outputs, name, row, row)
            each = Loop(builder, thread, I32(block.dim * block.multiplicity), threads)
            component = builder.udiv(each.index, I32(block.multiplicity))
            channel = builder.urem(each.index, I32(block.multiplicity))
            group, within = builder.udiv(channel, I32(lanes.width)), builder.urem(channel, I32(lanes.width))
            part, across = builder.udiv(group, I32(lanes.across)), builder.urem(group, I32(lanes.across))
            place = builder.add(builder.mul(part, I32(block.dim)), component)
            place = builder.add(builder.mul(place, I32(LANES)), across)
            place = builder.add(builder.mul(place, I32(lanes.width)), within)
            place = builder.add(builder.add(sums, I32(start)), builder.mul(place, I32(self.item)))
            total = self._total(builder, place, count, lanes)
            number = builder.mul(component, I32(block.component_stride))
            number = builder.add(number, builder.mul(channel, I32(block.channel_stride)))
            number = builder.add(number, I32(block.offset))
            builder.store(total, self.pointer(builder, target, builder.zext(number, I64)))
            each.close()

    def _total(self, builder, place, count, lanes: Lanes):
        """The sum over `count` warps of the lanes that read other rows."""
        warp = Loop(builder, I32(0), count, I32(1), [ir.Constant(self.scalar, 0.0)])
        start = builder.add(place, builder.mul(warp.index, I32(self.sums_bytes)))
        (total,) = warp.carried
        for row in range(lanes.rows):
            at = builder.add(start, I32(row * lanes.across * lanes.width * self.item))
            total = builder.fadd(total, builder.load(builder.inttoptr(at, ir.PointerType(self.scalar, SHARED))))
        (total,) = warp.close([total])
        return total

    def _row(self, builder, addresses, names: Sequence[str], name: str, node, edge):
        """The address of an operand's row."""
        start = builder.extract_value(addresses, names.index(name))
        number = node if base(name) == self.problem.form[OUT] else edge
        size = self.problem.row(name).length * self.problem.stored_bytes(name)
        return builder.add(start, builder.mul(builder.zext(number, I64), I64(size)))

    def pointer(self, builder, row, number):
        """A pointer to a number of a row in global memory."""
        return builder.inttoptr(
            builder.add(row, builder.mul(number, I64(self.item))), ir.PointerType(self.scalar, GLOBAL)
        )

    def at(self, place: int, names: Iterable[str]) -> list[str]:
        """Those that are like the operand at this place of the form, in the contraction's order."""
        return sorted(name for name in names if base(name) == self.problem.form[place])
