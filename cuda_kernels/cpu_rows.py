"""Rows in memory on a CPU: loops over channels, and writing a component-major row in the layout that was asked for."""

from __future__ import annotations

from contextlib import contextmanager

from llvmlite import ir

from .body import SCALAR, declare
from .problem import Block, Problem

I32, I64, BYTE = ir.IntType(32), ir.IntType(64), ir.IntType(8)
POINTER = BYTE.as_pointer()


@contextmanager
def loop(builder: ir.IRBuilder, stop: int, step: int):
    """Code inside runs for channel = 0, step, ... below stop (at least once)."""
    # Hidden from LLVM, which would write out all rounds: no faster, and slow to compile.
    hidden = builder.asm(ir.FunctionType(I64, [I64]), "", "=r,0", [I64(stop)], False)
    before = builder.block
    body, after = builder.append_basic_block("channels"), builder.append_basic_block("done")
    builder.branch(body)
    builder.position_at_end(body)
    channel = builder.phi(I64)
    channel.add_incoming(I64(0), before)
    yield channel
    following = builder.add(channel, I64(step))
    channel.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, hidden), body, after)
    builder.position_at_end(after)


def write_row(builder: ir.IRBuilder, problem: Problem, kind: str, source, target, width: int) -> None:
    """Copy a row from component-major order to the problem's; both addresses are integers.

    The source is in cache, so that the transposition costs no memory traffic of its own.
    """
    for given, wanted in zip(problem.component_major().row(kind).blocks, problem.row(kind).blocks, strict=True):
        start, end = (
            builder.add(a, I64(b.offset * problem.item_bytes)) for a, b in ((source, given), (target, wanted))
        )
        if given == wanted:
            size, flag = given.multiplicity * given.dim * problem.item_bytes, ir.IntType(1)
            copy = declare(builder.module, "llvm.memcpy.p0.p0.i64", ir.VoidType(), [POINTER, POINTER, I64, flag])
            builder.call(copy, [builder.inttoptr(end, POINTER), builder.inttoptr(start, POINTER), I64(size), flag(0)])
        else:
            _write_interleaved(builder, SCALAR[problem.dtype], problem.item_bytes, given, start, end, width)


def _write_interleaved(builder, scalar, item: int, block: Block, source, target, width: int) -> None:
    """A block (dim, multiplicity) written as (multiplicity, dim)."""
    full = block.multiplicity // width * width
    if full:
        with loop(builder, full, width) as channel:
            _interleave(builder, scalar, item, block, source, target, channel, width)
    for rest in range(full, block.multiplicity):
        _interleave(builder, scalar, item, block, source, target, I64(rest), 1)


def _interleave(builder, scalar, item: int, block: Block, source, target, channel, width: int) -> None:
    """`width` channels: one vector a component is read, and as many are written, each number to its place."""
    vector = ir.VectorType(scalar, width)

    def pointer(address, number):
        place = builder.add(address, builder.mul(number, I64(item)))
        return builder.inttoptr(place, vector.as_pointer())

    columns = [
        builder.load(pointer(source, builder.add(channel, I64(i * block.multiplicity))), align=item, typ=vector)
        for i in range(block.dim)
    ]
    for n in range(block.dim):
        numbers = [divmod(n * width + lane, block.dim) for lane in range(width)]  # (channel, component)
        row = ir.Constant(vector, ir.Undefined)
        for i, column in enumerate(columns):
            lanes = [width + u if component == i else lane for lane, (u, component) in enumerate(numbers)]
            row = builder.shuffle_vector(row, column, ir.Constant(ir.VectorType(I32, width), lanes))
        start = builder.add(builder.mul(channel, I64(block.dim)), I64(n * width))
        builder.store(row, pointer(target, start), align=item)
