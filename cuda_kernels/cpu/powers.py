"""The CPU kernel of polynomials of features: a thread takes a vector of channels of all nodes of one target.

Channels have nothing to do with each other, so threads do not add to common sums. The coefficients of a vector of
channels lie together in a buffer, which stays in cache from node to node.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.extending import intrinsic

from ..body import SCALAR
from ..passes import Pass
from ..polynomial import Element
from ..powers import powers
from ..problem import COEFFICIENT, Block, Problem, base
from .compile import compiled
from .edge import INPUT, OUTPUT, Edge, vector_bytes
from .parts import INDEX, Parts
from .rows import I64, loop


def slabs(problem: Problem) -> tuple[int, int]:
    """Channels of a vector, and how many vectors there are; the last two may overlap."""
    channels = problem.multiplicity(problem.paths[0])
    width = min(vector_bytes() // problem.item_bytes, 1 << (channels.bit_length() - 1))
    return width, -(-channels // width)


def compile_powers(problem: Problem, walk: Pass, parallel: bool = True) -> Callable[..., None]:
    """The compiled kernel of one pass, for numba's threads or for the one that calls it.

    Returns:
        kernel(inputs, outputs, lists, rows), with arguments like those of `kernel.compile_kernel`.
    """
    parts = PowersParts(problem, walk)
    read_index, copy, contract_site, write = parts.read_index(), parts.copy(), parts.contract_site(), parts.write()
    number, count, vectors = np.dtype(problem.dtype), parts.buffer_numbers, slabs(problem)[1]

    @numba.njit(parallel=parallel, nogil=True)
    def kernel(inputs, outputs, lists, rows):
        first, edges, _ = lists
        for task in numba.prange(rows * vectors):
            row, vector = task // vectors, task % vectors
            buffer = np.zeros(count, number)
            begin, end = read_index(first, row), read_index(first, row + 1)
            if begin < end:
                copy(inputs, buffer, row, vector)
            for position in range(begin, end):
                contract_site(inputs, outputs, buffer, read_index(edges, position), vector)
            write(outputs, buffer, row, vector)

    address, contraction = types.uint64, walk.contraction
    counts = len(contraction.inputs), len(contraction.outputs), 3
    operands = [types.UniTuple(address, n) for n in counts]
    return compiled(kernel, types.void(*operands, types.int64), (problem.key, contraction.spec, parallel))


class PowersParts(Parts):
    """What the kernel is written with. The buffer has the coefficients of a vector of channels, and then the sums by
    coefficients."""

    def __init__(self, problem: Problem, walk: Pass):
        super().__init__(problem, walk)
        self.width = slabs(problem)[0]
        self.kept: dict[tuple[str, str], int] = {}
        self.buffer_numbers = 0
        for use, names in ((INPUT, self.contraction.inputs), (OUTPUT, self.contraction.outputs)):
            for name in filter(self.is_coefficient, names):
                self.kept[name, use] = self.buffer_numbers
                self.buffer_numbers += self.coefficients(name).dim * self.width

    def is_coefficient(self, name: str) -> bool:
        return base(name) == self.problem.form[COEFFICIENT]

    def coefficients(self, name: str) -> Block:
        (block,) = self.problem.row(name).blocks
        return block

    def copy(self):
        """(inputs, buffer, row, vector): the coefficients of the row, to the buffer."""
        return self._moved(INPUT)

    def write(self):
        """(outputs, buffer, row, vector): the sums by coefficients, to the row."""
        return self._moved(OUTPUT)

    def contract_site(self):
        """(inputs, outputs, buffer, site, vector): the site's share of all outputs."""

        @intrinsic
        def contract_site(typingctx, inputs, outputs, buffer, site, vector):
            def codegen(context, builder, signature, arguments):
                inputs, outputs, buffer, site, vector = arguments
                kept = self._buffer(context, builder, signature.args[2], buffer)
                addresses = {key: self._number(builder, kept, start) for key, start in self.kept.items()}
                for use, names, start in (
                    (INPUT, self.contraction.inputs, inputs),
                    (OUTPUT, self.contraction.outputs, outputs),
                ):
                    for n, name in enumerate(names):
                        if not self.is_coefficient(name):
                            addresses[name, use] = self._row(builder, builder.extract_value(start, n), name, site)
                _Site(self, builder, addresses, self._channel(builder, vector)).emit()
                return context.get_dummy_value()

            return types.void(inputs, outputs, buffer, INDEX, INDEX), codegen

        return contract_site

    def _moved(self, use: str):
        names = self.contraction.inputs if use == INPUT else self.contraction.outputs

        @intrinsic
        def moved(typingctx, rows, buffer, row, vector):
            def codegen(context, builder, signature, arguments):
                rows, buffer, row, vector = arguments
                kept = self._buffer(context, builder, signature.args[1], buffer)
                channel = self._channel(builder, vector)
                for (name, used), start in self.kept.items():
                    if used != use:
                        continue
                    block = self.coefficients(name)
                    outside = self._row(builder, builder.extract_value(rows, names.index(name)), name, row)
                    inside = self._number(builder, kept, start)
                    with loop(builder, block.dim, 1) as q:
                        far = builder.add(builder.mul(q, I64(block.component_stride)), channel)
                        places = self._vector(builder, outside, far), self._vector(builder, inside, q, self.width)
                        source, target = places if use == INPUT else reversed(places)
                        builder.store(
                            builder.load(source, align=self.problem.item_bytes), target, align=self.problem.item_bytes
                        )
                return context.get_dummy_value()

            return types.void(rows, buffer, INDEX, INDEX), codegen

        return moved

    def _channel(self, builder, vector):
        """The first channel of a vector: the last vector ends with the last channel."""
        last = self.problem.multiplicity(self.problem.paths[0]) - self.width
        channel = builder.mul(vector, I64(self.width))
        return builder.select(builder.icmp_signed("<", channel, I64(last)), channel, I64(last))

    def _vector(self, builder, address, number, step: int = 1):
        """A pointer to the vector that begins with a number."""
        place = builder.add(address, builder.mul(number, I64(step * self.problem.item_bytes)))
        return builder.inttoptr(place, ir.VectorType(SCALAR[self.problem.dtype], self.width).as_pointer())


class _Site(Edge):
    """All that is computed of a vector of channels of one site."""

    def __init__(self, parts: PowersParts, builder, addresses: dict, channel):
        super().__init__(builder, parts.problem, parts.contraction, addresses, lambda name: True)
        self.parts, self.channel, self.width = parts, channel, parts.width
        self.values: dict[Element, ir.Value] = {}

    def emit(self) -> None:
        sums = _Sums(self)
        powers(self.problem, self.contraction).evaluate(self.contraction, self.value, sums, self.arithmetic)
        zero = ir.Constant(ir.VectorType(self.scalar, self.width), None)
        for name in self.contraction.outputs:
            if self.parts.is_coefficient(name):
                for element in [element for element in sums if element[0] == name]:
                    self.builder.store(sums[element], self.kept(element, OUTPUT), align=self.problem.item_bytes)
                continue
            for block in self.problem.blocks(name):
                for i in range(self.problem.row(name).blocks[block].dim):
                    element = name, block, i
                    self.transfer(element, self.channel, self.width, self.width, sums.get(element, zero), OUTPUT)

    def value(self, element: Element) -> ir.Value:
        if element not in self.values:
            if self.parts.is_coefficient(element[0]):
                self.values[element] = self.loaded(element, INPUT)
            else:
                self.values[element] = self.load(element, self.channel, self.width, self.width)
        return self.values[element]

    def loaded(self, element: Element, use: str) -> ir.Value:
        return self.builder.load(self.kept(element, use), align=self.problem.item_bytes)

    def kept(self, element: Element, use: str):
        """A pointer to a vector in the buffer."""
        return self.parts._vector(self.builder, self.addresses[element[0], use], I64(element[2]), self.width)


class _Sums(dict):
    """Sums by coefficients go on from what is in the buffer."""

    def __init__(self, site: _Site):
        super().__init__()
        self.site = site

    def get(self, element: Element, default: ir.Value | None = None) -> ir.Value | None:
        if element not in self and self.site.parts.is_coefficient(element[0]):
            self[element] = self.site.loaded(element, OUTPUT)
        return super().get(element, default)
