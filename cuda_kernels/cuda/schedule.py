"""How a pass is cut into segments whose numbers fit a warp's registers and shared memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby

from ..passes import Pass
from ..problem import LEFT, OUT, Problem
from .segment import REGISTERS, Segment

Paths = tuple[int, ...]
"""Paths of a problem, by number."""


def segments(
    problem: Problem, walk: Pass, compute_capability: tuple[int, int], budget: int = REGISTERS
) -> tuple[Segment, ...]:
    """The paths in as few segments as keep the estimate of registers within `budget`.

    A segment holds paths of one multiplicity. Paths with the same left block stay together as far as that costs no
    further segment, so that it is read once. The owned rows' inputs stay in registers unless shared memory saves a
    segment.
    """
    ordered = sorted(
        range(len(problem.paths)), key=lambda n: (problem.paths[n].blocks[LEFT], problem.paths[n].blocks[OUT])
    )
    result: list[Segment] = []
    written: set[tuple[str, int]] = set()
    for multiplicity in sorted({problem.multiplicity(path) for path in problem.paths}, reverse=True):
        singly = [(n,) for n in ordered if problem.multiplicity(problem.paths[n]) == multiplicity]
        by_left = [
            tuple(n for (n,) in group) for _, group in groupby(singly, key=lambda p: problem.paths[p[0]].blocks[LEFT])
        ]
        cuts = [
            _cut(
                Segment(problem, walk.contraction, walk.by, (), compute_capability, in_shared=in_shared), pieces, budget
            )
            for in_shared in (False, True)
            for pieces in (by_left, singly)
        ]
        for part in min(cuts, key=len):
            result.append(replace(part, adds=part.stored_blocks & written, first=not result))
            written |= part.stored_blocks
    return tuple(result)


def _cut(empty: Segment, pieces: Iterable[Paths], budget: int) -> list[Segment]:
    """Successive pieces put together as far as they fit; a piece that does not fit alone is cut."""

    def fits(segment: Segment) -> bool:
        return segment.registers <= budget and segment.fits

    result: list[Segment] = []
    for piece in pieces:
        grown = replace(empty, paths=(result[-1].paths if result else ()) + piece)
        alone = replace(empty, paths=piece)
        if fits(grown):
            result[-1:] = [grown]
        elif len(piece) == 1 or fits(alone):
            result.append(alone)
        else:
            result += _cut(empty, [(n,) for n in piece], budget)
    return result
