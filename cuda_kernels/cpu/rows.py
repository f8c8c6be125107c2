"""Rows in memory on a CPU: loops over channels, and writing a component-major row in the layout that was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from llvmlite import ir

from ..body import SCALAR, declare
from ..problem import ITEM_BYTES, Block, Row

I32, I64, BYTE = ir.IntType(32), ir.IntType(64), ir.IntType(8)
POINTER = BYTE.as_pointer()


@contextmanager
def loop(builder: ir.IRBuilder, stop: int, step: int) -> Iterator[ir.Value]:
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


def write_row(
    builder: ir.IRBuilder,
    dtype: str,
    compact: Row,
    wanted: Row,
    source: ir.Value,
    target: ir.Value,
    width: int,
    back: bool = False,
) -> None:
    """Copy a row from component-major order, which is `compact`, to the wanted one, or `back`; addresses are integers.

    A row is in cache, so that the transposition costs no memory traffic of its own.
    """
    item = ITEM_BYTES[dtype]
    if compact == wanted:
        _copy(builder, source, target, wanted.length * item)
        return
    for before, after in zip(compact.blocks, wanted.blocks, strict=True):
        # Blocks have one offset in both orders.
        start, end = (builder.add(a, I64(b.offset * item)) for a, b in ((source, before), (target, after)))
        if before == after:
            _copy(builder, start, end, before.multiplicity * before.dim * item)
        else:
            _write_transposed(builder, SCALAR[dtype], item, before, start, end, width, back)


def _copy(builder: ir.IRBuilder, source, target, size: int) -> None:
    flag = ir.IntType(1)
    copy = declare(builder.module, "llvm.memcpy.p0.p0.i64", ir.VoidType(), [POINTER, POINTER, I64, flag])
    pointers = [builder.inttoptr(address, POINTER) for address in (target, source)]
    builder.call(copy, [*pointers, I64(size), flag(0)])


def _write_transposed(builder, scalar, item: int, block: Block, source, target, width: int, back: bool) -> None:
    """A block (dim, multiplicity) written as (multiplicity, dim), or back."""
    full = block.multiplicity // width * width
    if full:
        with loop(builder, full, width) as channel:
            _transpose(builder, scalar, item, block, source, target, channel, width, back)
    for rest in range(full, block.multiplicity):
        _transpose(builder, scalar, item, block, source, target, I64(rest), 1, back)


def _transpose(builder, scalar, item: int, block: Block, source, target, channel, width: int, back: bool) -> None:
    """`width` channels: as many vectors are read and written as there are components."""
    vector, dim = ir.VectorType(scalar, width), block.dim

    def pointer(address, number):
        place = builder.add(address, builder.mul(number, I64(item)))
        return builder.inttoptr(place, vector.as_pointer())

    columns = [builder.add(channel, I64(i * block.multiplicity)) for i in range(dim)]  # a component's channels
    runs = [builder.add(builder.mul(channel, I64(dim)), I64(n * width)) for n in range(dim)]  # a channel's components
    places = (runs, columns) if back else (columns, runs)
    vectors = [builder.load(pointer(source, place), align=item, typ=vector) for place in places[0]]
    for n, place in enumerate(places[1]):
        if back:
            origins = [divmod(lane * dim + n, width) for lane in range(width)]
        else:
            origins = [divmod(n * width + lane, dim)[::-1] for lane in range(width)]
        row = ir.Constant(vector, ir.Undefined)
        for m, read in enumerate(vectors):
            lanes = [width + place_in if of == m else lane for lane, (of, place_in) in enumerate(origins)]
            row = builder.shuffle_vector(row, read, ir.Constant(ir.VectorType(I32, width), lanes))
        builder.store(row, pointer(target, place), align=item)
