"""Loops in LLVM IR that carry numbers from one round to the next."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir


class Loop:
    """Code emitted between its making and `close` runs for index = start, start + step, ... below stop, maybe never.

    Attributes:
        index: of the round.
        carried: at the beginning of a round what `close` was given by the one before, `initial` in the first.
    """

    def __init__(self, builder: ir.IRBuilder, start, stop, step, initial: Sequence[ir.Value] = ()):
        self.builder, self._step = builder, step
        before = builder.block
        self._check = builder.append_basic_block("check")
        body, self._after = builder.append_basic_block("body"), builder.append_basic_block("after")
        builder.branch(self._check)
        builder.position_at_end(self._check)
        self._phis = [builder.phi(value.type) for value in (start, *initial)]
        for phi, value in zip(self._phis, (start, *initial), strict=True):
            phi.add_incoming(value, before)
        self.index, *self.carried = self._phis
        builder.cbranch(builder.icmp_signed("<", self.index, stop), body, self._after)
        builder.position_at_end(body)

    def close(self, carried: Sequence[ir.Value] = ()) -> list[ir.Value]:
        """End the round; returns what the last one carries."""
        following = self.builder.add(self.index, self._step)
        for phi, value in zip(self._phis, (following, *carried), strict=True):
            phi.add_incoming(value, self.builder.block)
        back = self.builder.branch(self._check)
        back.set_metadata("llvm.loop", _never_unrolled(self.builder.module))
        self.builder.position_at_end(self._after)
        return self.carried


def _never_unrolled(module: ir.Module) -> ir.MDValue:
    """What LLVM and the assembler need to be told of a loop, which they would write out otherwise."""
    loop = module.add_metadata([module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])])
    loop.operands = (loop, *loop.operands)  # by which LLVM knows it from others
    return loop
