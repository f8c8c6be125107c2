"""Several successive numbers at once, from memory and to it, as they are stored there."""

from __future__ import annotations

from llvmlite import ir

from . import ptx
from .ptx import I16, I32
from .staging import WIDE


def load(builder: ir.IRBuilder, address, count: int, scalar: ir.Type, space: int, stored: str | None = None) -> list:
    """`count` (a power of two) numbers as they are computed with; two of 16 bits travel as one of 32."""
    if stored is None:
        return _unpacked(builder, _load(builder, address, count, scalar, space))
    if count == 1:
        return [ptx.widened(builder, _load(builder, address, 1, I16, space), stored)]
    values = []
    for pair in _unpacked(builder, _load(builder, address, count // 2, I32, space)):
        halves = builder.trunc(pair, I16), builder.trunc(builder.lshr(pair, I32(16)), I16)
        values += [ptx.widened(builder, half, stored) for half in halves]
    return values


def store(builder: ir.IRBuilder, address, values: list, space: int, stored: str | None = None) -> None:
    """The numbers, one after the other."""
    values = [ptx.narrowed(builder, value, stored) for value in values]
    if stored and len(values) > 1:
        wide = [builder.zext(value, I32) for value in values]
        pairs = zip(wide[::2], wide[1::2], strict=True)
        values = [builder.or_(low, builder.shl(high, I32(16))) for low, high in pairs]
    kind, packed = values[0].type, values[0]
    if len(values) > 1:
        kind = ir.VectorType(kind, len(values))
        packed = ir.Constant(kind, ir.Undefined)
        for n, value in enumerate(values):
            packed = builder.insert_element(packed, value, I32(n))
    builder.store(packed, builder.inttoptr(address, ir.PointerType(kind, space)), align=_bytes(kind))


def _load(builder: ir.IRBuilder, address, count: int, scalar: ir.Type, space: int):
    kind = scalar if count == 1 else ir.VectorType(scalar, count)
    return builder.load(builder.inttoptr(address, ir.PointerType(kind, space)), align=_bytes(kind))


def _unpacked(builder: ir.IRBuilder, value) -> list:
    if not isinstance(value.type, ir.VectorType):
        return [value]
    return [builder.extract_element(value, I32(n)) for n in range(value.type.count)]


def _bytes(kind: ir.Type) -> int:
    """Of a number, or of a vector as far as the machine cares where it begins."""
    if isinstance(kind, ir.VectorType):
        return min(WIDE, kind.count * _bytes(kind.element))
    return {I16: 2, I32: 4, ir.FloatType(): 4, ir.DoubleType(): 8}[kind]
