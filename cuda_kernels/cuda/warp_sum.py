"""Sums over the lanes of a warp, many at a time."""

from __future__ import annotations

from llvmlite import ir

from . import ptx
from .ptx import I32, SHARED
from .staging import LANES, WIDE, lane_row_bytes


def store_sums(
    builder: ir.IRBuilder, values: list[ir.Value], lane: ir.Value, scratch: ir.Value, address: ir.Value, item: int
) -> None:
    """Sum each value over the warp and store the sums one after the other at `address` in shared memory.

    Every lane puts its values into a column of the scratch; then several lanes share out the row of a value. Shuffles
    alone take twice the instructions.
    """
    for start in range(0, len(values), LANES):
        part = values[start : start + LANES]
        row_lanes = LANES >> (len(part) - 1).bit_length()  # lanes that share out a row
        ptx.synchronize_warp(builder)
        column = builder.add(scratch, builder.mul(lane, I32(item)))
        for n, value in enumerate(part):
            builder.store(value, _pointer(builder, column, n * lane_row_bytes(item), value.type))
        ptx.synchronize_warp(builder)
        number, share = builder.udiv(lane, I32(row_lanes)), builder.urem(lane, I32(row_lanes))
        exists = builder.icmp_unsigned("<", number, I32(len(part)))
        row = builder.select(exists, number, I32(0))
        begin = builder.add(scratch, builder.mul(row, I32(lane_row_bytes(item))))
        begin = builder.add(begin, builder.mul(share, I32(LANES // row_lanes * item)))
        total = _sum_of_run(builder, begin, LANES // row_lanes, part[0].type, item)
        distance = 1
        while distance < row_lanes:
            total = builder.fadd(total, ptx.exchange(builder, total, distance))
            distance *= 2
        with builder.if_then(builder.and_(exists, builder.icmp_unsigned("==", share, I32(0)))):
            place = builder.add(address, builder.mul(number, I32(item)))
            builder.store(total, _pointer(builder, place, start * item, total.type))


def _sum_of_run(builder: ir.IRBuilder, begin, count: int, scalar: ir.Type, item: int):
    """The sum of `count` (a power of two) successive numbers, read in pieces as wide as there are, added pair by
    pair."""
    width = min(count, WIDE // item)
    piece = ir.VectorType(scalar, width)
    values = []
    for n in range(0, count, width):
        loaded = builder.load(_pointer(builder, begin, n * item, piece), align=width * item)
        values += [builder.extract_element(loaded, I32(m)) for m in range(width)]
    while len(values) > 1:
        values = [builder.fadd(a, b) for a, b in zip(values[::2], values[1::2], strict=True)]
    return values[0]


def _pointer(builder: ir.IRBuilder, address, offset: int, kind: ir.Type):
    return builder.inttoptr(builder.add(address, I32(offset)), ir.PointerType(kind, SHARED))
