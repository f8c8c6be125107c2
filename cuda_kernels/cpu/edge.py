"""One edge on a CPU: for each path its matrix of the edge features, then a loop over channels in vector registers."""

from __future__ import annotations

from collections.abc import Callable

import llvmlite.binding as llvm
from llvmlite import ir

from ..body import SCALAR, Arithmetic, declare, suffix
from ..contraction import Contraction
from ..polynomial import Element, evaluate_path, matrices
from ..problem import ITEM_BYTES, RIGHT, Channels, Path, Problem
from .rows import I32, I64, POINTER, loop

SECOND_LEVEL = 2
"""The cache that weights are fetched into, as LLVM's prefetch names it. With the first level, a forward is slower than
without."""

INPUT, OUTPUT, LATER = "input", "output", "input of a later edge"


def vector_bytes() -> int:
    """Bytes of a vector register of this processor: 64 with AVX-512, 32 with AVX, otherwise 16."""
    features = llvm.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx") else 16


class Emitter:
    """What emits the code of one edge.

    Args:
        addresses: of the operands' rows, by (operand, INPUT), (operand, OUTPUT) and, where a later edge's row is to be
            fetched in time, (operand, LATER).
        is_summed: of an output's name, whether paths or edges add to its row; otherwise one path writes each block.
    """

    def __init__(
        self,
        builder: ir.IRBuilder,
        problem: Problem,
        contraction: Contraction,
        addresses: dict[tuple[str, str], ir.Value],
        is_summed: Callable[[str], bool],
    ):
        self.builder, self.problem, self.contraction, self.addresses = builder, problem, contraction, addresses
        self.is_summed = is_summed
        self.scalar = SCALAR[problem.dtype]
        self.arithmetic = Arithmetic(builder, problem.dtype)
        self.max_width = vector_bytes() // ITEM_BYTES[problem.dtype]


class Edge(Emitter):
    """For each path its matrix of the edge features, then a loop over channels; then what they sum to.

    A path at a time, because then its matrix stays in vector registers throughout the loop.
    """

    def emit(self) -> None:
        edge_features: dict = {}

        def read(element):
            if element not in edge_features:
                edge_features[element] = self.builder.load(self.pointer(element, I64(0)), typ=self.scalar)
            return edge_features[element]

        shared = not self.has_channels(self.problem.form[RIGHT])  # one matrix then serves all channels
        gradients: dict = {}
        for path in self.problem.paths:
            matrix = matrices(path, self.contraction, read, self.arithmetic) if shared else None
            self.channels(path, matrix, gradients)
        for name in self.contraction.outputs:
            if not self.has_channels(name):
                self.write_features(name, gradients)

    def has_channels(self, name: str) -> bool:
        return self.problem.operand(name).channels is not Channels.NONE

    def write_features(self, name: str, gradients: dict) -> None:
        for block, shape in enumerate(self.problem.row(name).blocks):
            for j in range(shape.dim):
                value = gradients.get((name, block, j), ir.Constant(self.scalar, 0.0))
                self.builder.store(value, self.pointer((name, block, j), I64(0), OUTPUT))

    def channels(self, path: Path, matrix: dict | None, gradients: dict) -> None:
        """One path: a loop over full vectors, then one vector for the rest."""
        multiplicity = self.problem.multiplicity(path)
        width = min(self.max_width, 1 << (multiplicity - 1).bit_length())
        full = multiplicity // width * width
        if full:
            totals = self.accumulators(path, width)
            with loop(self.builder, full, width) as channel:
                self.vector(path, matrix, channel, width, width, totals)
            self.reduce(totals, gradients)
        if rest := multiplicity - full:
            width = 1 << (rest - 1).bit_length()
            totals = self.accumulators(path, width)
            self.vector(path, matrix, I64(full), width, rest, totals)
            self.reduce(totals, gradients)

    def vector(self, path: Path, matrix: dict | None, channel: ir.Value, width: int, used: int, totals: dict) -> None:
        """`used` channels from `channel` on, in vectors of `width`."""
        values: dict = {}

        def read(element):
            if element not in values:
                values[element] = self.load(element, channel, width, used)
                self.fetch_later(element, channel)
            return values[element]

        sums = _Sums(self, channel, width, used, totals)
        evaluate_path(path, self.contraction, read, sums, self.arithmetic, matrix)
        sums.write()

    def accumulators(self, path: Path, width: int) -> dict:
        """Zeroed vectors, one for each component of the edge features' gradients, that live across the channels."""
        vector = ir.VectorType(self.scalar, width)
        components = {j for _, j, _, _ in path.coefficients}
        features = [name for name in self.contraction.outputs if not self.has_channels(name)]
        elements = {(name, path.blocks[RIGHT], j) for name in features for j in components}
        with self.builder.goto_entry_block():
            slots = {element: self.builder.alloca(vector) for element in sorted(elements)}
        for slot in slots.values():
            self.builder.store(ir.Constant(vector, None), slot)
        return slots

    def reduce(self, totals: dict, gradients: dict) -> None:
        for element, slot in totals.items():
            vector = self.builder.load(slot, typ=slot.allocated_type)
            name = f"llvm.vector.reduce.fadd.{suffix(vector.type)}"
            add = declare(self.builder.module, name, self.scalar, [self.scalar, vector.type])
            before = gradients.get(element, ir.Constant(self.scalar, 0.0))
            gradients[element] = self.builder.call(add, [before, vector], fastmath=("reassoc",))

    def fetch_later(self, element: Element, channel: ir.Value) -> None:
        """Start to fetch what a later edge reads in this place, one part of a row at a time."""
        if (element[0], LATER) in self.addresses:
            arguments = [POINTER, I32, I32, I32]
            prefetch = declare(self.builder.module, "llvm.prefetch.p0", ir.VoidType(), arguments)
            place = self.builder.bitcast(self.pointer(element, channel, LATER), POINTER)
            self.builder.call(prefetch, [place, I32(0), I32(SECOND_LEVEL), I32(1)])

    def pointer(self, element: Element, channel: ir.Value, role: str = INPUT) -> ir.Value:
        operand, block, component = element
        shape = self.problem.row(operand).blocks[block]
        number = self.builder.add(
            self.builder.mul(channel, I64(shape.channel_stride)), I64(shape.offset + component * shape.component_stride)
        )
        address = self.builder.add(
            self.addresses[operand, role], self.builder.mul(number, I64(self.problem.item_bytes))
        )
        return self.builder.inttoptr(address, self.scalar.as_pointer())

    def load(self, element: Element, channel: ir.Value, width: int, used: int, role: str = INPUT) -> ir.Value:
        """A vector of `width` channels of which `used` exist; the others are zero."""
        return self.transfer(element, channel, width, used, None, role)

    def store_vector(self, element: Element, value: ir.Value, pointer: ir.Value, width: int) -> None:
        """Gradients that are written once, and nobody reads soon, go past the caches if their place is aligned."""
        row, size = self.problem.row(element[0]), self.problem.item_bytes
        block = row.blocks[element[1]]
        aligned = all(number % width == 0 for number in (row.length, block.offset, block.component_stride))
        past_caches = aligned and not self.is_summed(element[0])
        store = self.builder.store(value, pointer, align=size * width if past_caches else size)
        if past_caches:
            store.set_metadata("nontemporal", self.builder.module.add_metadata([I32(1)]))

    def transfer(
        self, element: Element, channel: ir.Value, width: int, used: int, value: ir.Value | None, role: str
    ) -> ir.Value | None:
        """Load the element's channels, or store `value` to them."""
        builder, vector = self.builder, ir.VectorType(self.scalar, width)
        stride = self.problem.row(element[0]).blocks[element[1]].channel_stride
        pointer = self.pointer(element, channel, role)
        if stride == 1 and used == width:
            pointer = builder.bitcast(pointer, vector.as_pointer())
            if value is None:
                return builder.load(pointer, align=self.problem.item_bytes, typ=vector)
            self.store_vector(element, value, pointer, width)
            return None
        places = [builder.gep(pointer, [I64(n * stride)], source_etype=self.scalar) for n in range(used)]
        if value is not None:
            for n, place in enumerate(places):
                builder.store(builder.extract_element(value, I32(n)), place)
            return None
        result = ir.Constant(vector, None)
        for n, place in enumerate(places):
            result = builder.insert_element(result, builder.load(place, typ=self.scalar), I32(n))
        return result


class _Sums(dict):
    """The sums of one path: gradients that other paths or edges add to go on from what is there."""

    def __init__(self, edge: Edge, channel: ir.Value, width: int, used: int, totals: dict):
        super().__init__()
        self.edge, self.place, self.totals = edge, (channel, width, used), totals

    def get(self, element: Element, default: ir.Value | None = None) -> ir.Value | None:
        if element not in self:
            if (slot := self.totals.get(element)) is not None:
                self[element] = self.edge.builder.load(slot, typ=slot.allocated_type)
            elif self.edge.is_summed(element[0]):
                self[element] = self.edge.load(element, *self.place, OUTPUT)
        return super().get(element, default)

    def write(self) -> None:
        for element, value in self.items():
            if element in self.totals:
                self.edge.builder.store(value, self.totals[element])
            else:
                self.edge.transfer(element, *self.place, value, OUTPUT)
