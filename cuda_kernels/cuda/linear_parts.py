"""The parts of the kernels of linear maps: pieces of matrices in shared memory, and their products in registers."""

from __future__ import annotations

from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import intrinsic

from ..body import SCALAR, Arithmetic
from ..linear import FOUR, TILE
from . import ptx
from .ptx import GLOBAL, I32, I64, SHARED
from .staging import LANES

# A warp stages and multiplies pieces of both factors, 16 terms deep, and the warps of a block share out all terms:
# small molecules have few tiles. A thread computes 8 x 4 numbers of the tile.
DEPTH, ROWS, COLUMNS = 16, 8, 4
ACROSS, DOWN = TILE // COLUMNS, TILE // ROWS
# Staged rows, read and written four numbers at a time, begin in different banks of shared memory.
DEEP, WIDE = DEPTH + FOUR, TILE + FOUR
STAGE = 2 * TILE * DEEP  # numbers of a warp: no less than those of a tile, whose sums end there, too
READ_BYTES = 16  # of a thread at once, at most


class Parts:
    """What the kernels are written with, as numba intrinsics; each method's docstring is the documentation of the one
    that it makes.

    Pieces lie in shared memory in rows of terms, `DEEP` numbers apart ("deep"), or in rows of the tile, `WIDE` apart.

    Args:
        number: numba's type of the numbers.
        left_deep, right_deep: how pieces of the two factors lie.
    """

    def __init__(self, number: types.Type, left_deep: bool, right_deep: bool):
        self.number, self.scalar, self.size = number, SCALAR[number.name], number.bitwidth // 8
        self.left_deep, self.right_deep = left_deep, right_deep
        self.vector = ir.VectorType(self.scalar, READ_BYTES // self.size)

    def fetch(self, deep: bool):
        """(numbers, begin, first, limit, step): the lane's 16 numbers of a piece, four each of the rows first, first +
        8 and so on (first + 4 if it is not deep), but of none beyond limit - 1. Rows begin `step` numbers apart."""
        rows, parts = LANES * FOUR // (DEPTH if deep else TILE), self

        @intrinsic
        def fetch(typingctx, numbers, begin, first, limit, step):
            def codegen(context, builder, signature, arguments):
                numbers, begin, first, limit, step = arguments
                last, found = builder.sub(limit, I32(1)), []
                for n in range(DEPTH // FOUR):
                    row = builder.add(first, I32(n * rows))
                    row = builder.select(builder.icmp_signed("<", row, last), row, last)
                    place = builder.add(begin, builder.sext(builder.mul(row, step), I64))
                    address = builder.ptrtoint(builder.gep(numbers, [place]), I64)
                    found += parts._four(builder, address, 0, GLOBAL)
                return parts._tuple(builder, found)

            return types.UniTuple(parts.number, DEPTH)(numbers, types.int64, *[types.int32] * 3), codegen

        return fetch

    def put(self, deep: bool):
        """(memory, place, fetched, first, limit): stages what was fetched, zeros in place of rows from `limit` on."""
        rows, parts = LANES * FOUR // (DEPTH if deep else TILE), self
        pitch = DEEP if deep else WIDE

        @intrinsic
        def put(typingctx, memory, place, fetched, first, limit):
            def codegen(context, builder, signature, arguments):
                memory, place, fetched, first, limit = arguments
                start = parts._address(context, builder, signature.args[0], memory, place)
                zero = ir.Constant(parts.scalar, 0.0)
                for n in range(DEPTH // FOUR):
                    kept = builder.icmp_signed("<", builder.add(first, I32(n * rows)), limit)
                    for m in range(0, FOUR, parts.vector.count):
                        packed = ir.Constant(parts.vector, ir.Undefined)
                        for k in range(parts.vector.count):
                            value = builder.select(kept, builder.extract_value(fetched, FOUR * n + m + k), zero)
                            packed = builder.insert_element(packed, value, I32(k))
                        address = builder.add(start, I32((n * rows * pitch + m) * parts.size))
                        pointer = builder.inttoptr(address, ir.PointerType(parts.vector, SHARED))
                        builder.store(packed, pointer, align=READ_BYTES)
                return context.get_dummy_value()

            return types.void(memory, types.int32, fetched, types.int32, types.int32), codegen

        return put

    def multiply(self):
        """(sums, memory, left, right, down, across): the thread's 8 x 4 sums, in a tuple, with the terms of the pieces
        staged at left and right. Their rows are 4 apart where left pieces are deep, from `down` on, or else 8 in
        succession; their columns 8 apart where right ones are, from `across` on, or else 4 in succession."""
        parts = self

        @intrinsic
        def multiply(typingctx, sums, memory, left, right, down, across):
            def codegen(context, builder, signature, arguments):
                sums, memory, left, right, down, across = arguments
                arithmetic = Arithmetic(builder, parts.number.name)
                left = builder.add(left, builder.mul(down, I32(DEEP if parts.left_deep else ROWS)))
                right = builder.add(right, builder.mul(across, I32(DEEP if parts.right_deep else COLUMNS)))
                left = parts._address(context, builder, signature.args[1], memory, left)
                right = parts._address(context, builder, signature.args[1], memory, right)
                totals = [builder.extract_value(sums, n) for n in range(ROWS * COLUMNS)]
                for begin in range(0, DEPTH, FOUR):
                    rows = parts._terms(builder, left, begin, ROWS, parts.left_deep, DOWN)
                    columns = parts._terms(builder, right, begin, COLUMNS, parts.right_deep, ACROSS)
                    for row, column in zip(rows, columns, strict=True):
                        for n in range(ROWS * COLUMNS):
                            totals[n] = arithmetic.fma(row[n // COLUMNS], column[n % COLUMNS], totals[n])
                return parts._tuple(builder, totals)

            return sums(sums, memory, *[types.int32] * 4), codegen

        return multiply

    def spread(self):
        """(memory, place, sums, down, across): the thread's sums where they belong in a tile that begins at this place,
        whose rows are `WIDE` apart."""
        parts = self

        @intrinsic
        def spread(typingctx, memory, place, sums, down, across):
            def codegen(context, builder, signature, arguments):
                memory, place, sums, down, across = arguments
                down = builder.mul(down, I32(WIDE if parts.left_deep else WIDE * ROWS))
                across = builder.mul(across, I32(1 if parts.right_deep else COLUMNS))
                place = builder.add(place, builder.add(down, across))
                address = parts._address(context, builder, signature.args[0], memory, place)
                for i in range(ROWS):
                    for j in range(COLUMNS):
                        row, column = i * (DOWN if parts.left_deep else 1), j * (ACROSS if parts.right_deep else 1)
                        offset = I32((row * WIDE + column) * parts.size)
                        pointer = builder.inttoptr(builder.add(address, offset), ir.PointerType(parts.scalar, SHARED))
                        builder.store(builder.extract_value(sums, COLUMNS * i + j), pointer, align=parts.size)
                return context.get_dummy_value()

            return types.void(memory, types.int32, sums, types.int32, types.int32), codegen

        return spread

    def _terms(self, builder, address, begin: int, count: int, deep: bool, apart: int) -> list:
        """Of terms begin to begin + 3 the thread's `count` numbers each."""
        if deep:
            lines = [self._four(builder, address, apart * i * DEEP + begin, SHARED) for i in range(count)]
            return list(zip(*lines, strict=True))
        return [
            [value for part in range(0, count, FOUR) for value in self._four(builder, address, k * WIDE + part, SHARED)]
            for k in range(begin, begin + FOUR)
        ]

    def _four(self, builder, address, place: int, space: int) -> list:
        """The four numbers from this place on, at an address of 32 bits in shared and 64 in global memory."""
        numbers = []
        for part in range(place, place + FOUR, self.vector.count):
            offset = ir.Constant(address.type, part * self.size)
            pointer = builder.inttoptr(builder.add(address, offset), ir.PointerType(self.vector, space))
            read = builder.load(pointer, align=READ_BYTES)
            numbers += [builder.extract_element(read, I32(n)) for n in range(self.vector.count)]
        return numbers

    def _address(self, context, builder, kind, memory, place):
        start = ptx.shared_address(builder, context.make_array(kind)(context, builder, memory).data)
        return builder.add(start, builder.mul(place, I32(self.size)))

    def _tuple(self, builder, values):
        packed = ir.Constant(ir.ArrayType(self.scalar, len(values)), ir.Undefined)
        for n, value in enumerate(values):
            packed = builder.insert_value(packed, value, n)
        return packed
