"""Sums over the lanes of a warp, many at a time."""

from __future__ import annotations

from llvmlite import ir

from . import ptx
from .ptx import I32
from .staging import LANES


def store_sums(builder: ir.IRBuilder, values: list[ir.Value], lane, address, item: int) -> None:
    """Sum each value over the warp and store the sums one after the other at `address` in shared memory.

    The lanes halve their lists in turn (each keeps one half and hands the other to its partner), so that n values cost
    about n exchanges instead of 5 n; in the end a lane holds the sum of one value.
    """
    for start in range(0, len(values), LANES):
        listed = values[start : start + LANES]
        count = len(listed)
        width = 1 << (count - 1).bit_length()
        zero = ir.Constant(listed[0].type, 0.0)
        total, index, spare = _halved(builder, listed + [zero] * (width - count), lane)
        chosen = builder.icmp_unsigned("<", index, I32(count))
        if spare:
            chosen = builder.and_(chosen, builder.icmp_unsigned("==", builder.and_(lane, I32(spare)), I32(0)))
        with builder.if_then(chosen):
            place = builder.add(address, builder.mul(builder.add(index, I32(start)), I32(item)))
            builder.store(total, builder.inttoptr(place, ir.PointerType(total.type, ptx.SHARED)))


def _halved(builder: ir.IRBuilder, listed: list[ir.Value], lane):
    """The sum that this lane ends up with, its index in the list, and the bits of the lane in which all sums agree."""
    bit, index = LANES // 2, I32(0)
    while len(listed) > 1:
        half = len(listed) // 2
        upper = builder.icmp_unsigned("!=", builder.and_(lane, I32(bit)), I32(0))
        low, high = listed[:half], listed[half:]
        kept = [builder.select(upper, *pair) for pair in zip(high, low, strict=True)]
        given = [builder.select(upper, *pair) for pair in zip(low, high, strict=True)]
        listed = [builder.fadd(k, ptx.exchange(builder, g, bit)) for k, g in zip(kept, given, strict=True)]
        index = builder.add(index, builder.select(upper, I32(half), I32(0)))
        bit //= 2
    total, spare = listed[0], max(0, 2 * bit - 1)
    while bit:
        total = builder.fadd(total, ptx.exchange(builder, total, bit))
        bit //= 2
    return total, index, spare
