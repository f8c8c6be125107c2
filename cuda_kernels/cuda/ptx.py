"""The few PTX instructions that LLVM has no words for."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

I16, I32, I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
GLOBAL, SHARED = 1, 3
"""LLVM's address spaces."""


def assemble(
    builder: ir.IRBuilder, text: str, constraints: str, arguments: Sequence[ir.Value], result: ir.Type | None = None
) -> ir.Value:
    """Inline assembly that is not moved or removed."""
    result = ir.VoidType() if result is None else result
    return builder.asm(ir.FunctionType(result, [a.type for a in arguments]), text, constraints, list(arguments), True)


def shared_address(builder: ir.IRBuilder, pointer: ir.Value) -> ir.Value:
    """The 32-bit shared-memory address of a generic pointer."""
    text = "{ .reg .u64 t; cvta.to.shared.u64 t, $1; cvt.u32.u64 $0, t; }"
    return assemble(builder, text, "=r,l", [builder.ptrtoint(pointer, I64)], I32)


def copy_async(builder: ir.IRBuilder, size: int, shared: ir.Value, source: ir.Value, offset: int, keep: bool) -> None:
    """Start copying `size` (4, 8 or 16) bytes from source + offset to shared memory; 16 bytes go around the L1 cache,
    unless they are to be kept there."""
    cache = "ca" if keep or size < 16 else "cg"
    text = f"cp.async.{cache}.shared.global [$0], [$1+{offset}], {size};"
    assemble(builder, text, "r,l,~{memory}", [shared, source])


def commit_copies(builder: ir.IRBuilder) -> None:
    """Close the group of the copies started so far."""
    assemble(builder, "cp.async.commit_group;", "~{memory}", [])


def wait_copies(builder: ir.IRBuilder, pending: int) -> None:
    """Wait until at most `pending` groups are under way."""
    assemble(builder, f"cp.async.wait_group {pending};", "~{memory}", [])


def add_atomically(builder: ir.IRBuilder, address: ir.Value, value: ir.Value, offset: int = 0) -> None:
    """Add to the number at address + offset in global memory; nothing is returned, so the addition runs in the L2
    cache."""
    kind, register = ("f32", "f") if value.type == ir.FloatType() else ("f64", "d")
    assemble(builder, f"red.global.add.{kind} [$0+{offset}], $1;", f"l,{register},~{{memory}}", [address, value])


def synchronize_warp(builder: ir.IRBuilder) -> None:
    """All lanes have come here, and see what the others wrote to shared memory."""
    assemble(builder, "bar.warp.sync 0xffffffff;", "~{memory}", [])


def synchronize_block(builder: ir.IRBuilder) -> None:
    """All threads of the block have come here, and see what the others wrote to shared memory."""
    assemble(builder, "bar.sync 0;", "~{memory}", [])


def exchange(builder: ir.IRBuilder, value: ir.Value, distance: int) -> ir.Value:
    """The value of the lane whose number differs in the bit `distance`."""
    if value.type == ir.DoubleType():
        bits = builder.bitcast(value, I64)
        halves = [builder.trunc(bits, I32), builder.trunc(builder.lshr(bits, I64(32)), I32)]
        low, high = (builder.zext(_exchange(builder, half, distance), I64) for half in halves)
        return builder.bitcast(builder.or_(low, builder.shl(high, I64(32))), value.type)
    return builder.bitcast(_exchange(builder, builder.bitcast(value, I32), distance), value.type)


def _exchange(builder: ir.IRBuilder, bits, distance: int):
    return assemble(builder, f"shfl.sync.bfly.b32 $0, $1, {distance}, 31, 0xffffffff;", "=r,r", [bits], I32)


def widened(builder: ir.IRBuilder, value: ir.Value, stored: str | None) -> ir.Value:
    """A number as it is computed with, from what is in memory (16 bits of an integer, if it is stored in so few)."""
    if stored is None:
        return value
    if stored == "bfloat16":
        return builder.bitcast(builder.shl(builder.zext(value, I32), I32(16)), ir.FloatType())
    return assemble(builder, "cvt.f32.f16 $0, $1;", "=f,h", [value], ir.FloatType())


def narrowed(builder: ir.IRBuilder, value: ir.Value, stored: str | None) -> ir.Value:
    """What is stored of a number: the nearest that fits."""
    if stored is None:
        return value
    kind = {"bfloat16": "bf16", "float16": "f16"}[stored]
    return assemble(builder, f"cvt.rn.{kind}.f32 $0, $1;", "=h,f", [value], I16)
