"""How a contraction is cut into passes, and a pass into segments whose numbers fit a warp's registers and shared
memory."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import groupby

from .polynomial import Contraction, kind
from .problem import Problem
from .segment import REGISTERS, Segment


def segments(
    problem: Problem,
    contraction: Contraction,
    owner: str,
    compute_capability: tuple[int, int],
    budget: int = REGISTERS,
) -> tuple[Segment, ...]:
    """The paths in as few segments as keep the estimate of registers within `budget`.

    A segment holds paths of one multiplicity. Paths with the same x block stay together as far as that costs no further
    segment, so that x is read once. The owned rows' inputs stay in registers unless shared memory saves a segment.
    """
    multiplicities = sorted({problem.multiplicity(path) for path in problem.paths}, reverse=True)
    ordered = sorted(range(len(problem.paths)), key=lambda n: (problem.paths[n].x, problem.paths[n].out))

    def segment(paths: tuple[int, ...], in_shared: bool, **place) -> Segment:
        return Segment(problem, contraction, owner, paths, compute_capability, in_shared=in_shared, **place)

    def cut(pieces: list[tuple[int, ...]], in_shared: bool) -> list[Segment]:
        """Successive pieces put together as far as they fit; a piece that does not fit alone is cut."""
        result: list[Segment] = []
        for piece in pieces:
            grown = segment((result[-1].paths if result else ()) + piece, in_shared)
            if grown.registers <= budget and grown.fits:
                result[-1:] = [grown]
                continue
            alone = segment(piece, in_shared)
            if len(piece) == 1 or (alone.registers <= budget and alone.fits):
                result.append(alone)
            else:
                result += cut([(n,) for n in piece], in_shared)
        return result

    result: list[Segment] = []
    written: set[int] = set()
    for multiplicity in multiplicities:
        singly = [(n,) for n in ordered if problem.multiplicity(problem.paths[n]) == multiplicity]
        by_x = [tuple(n for (n,) in group) for _, group in groupby(singly, key=lambda p: problem.paths[p[0]].x)]
        cuts = [cut(pieces, in_shared) for in_shared in (False, True) for pieces in (by_x, singly)]
        for part in min(cuts, key=len):
            blocks = {problem.paths[n].block(owner) for n in part.paths}
            result.append(replace(part, adds=frozenset(blocks & written), first=not result))
            written.update(blocks)
    return tuple(result)


@cache
def zeroed_outputs(problem: Problem, contraction: Contraction, owner: str) -> list[str]:
    """The outputs that a GPU pass adds to, or does not write all of: they must be zero before it."""

    def is_written(of: str) -> bool:
        blocks = {path.block(of) for path in problem.paths} - {None}
        return of == "y" or ((of in (owner, "w")) and len(blocks) == len(problem.row(of).blocks))

    return [output for output in contraction.outputs if not is_written(kind(output))]


@cache
def owned_passes(contraction: Contraction) -> tuple[tuple[str, Contraction], ...]:
    """Passes in which every node's row is written by the one thread or warp that owns the node: no atomics, one order
    of additions.

    Returns (owner, contraction) pairs: owner "g" walks the edges of target nodes and may write rows of g, owner "x"
    walks those of source nodes and may write rows of x; rows of edges (y, w) go with either.
    """
    outputs = contraction.outputs
    at_target = [output for output in outputs if kind(output) == "g"]
    at_source = [output for output in outputs if kind(output) == "x"]
    if not at_source:
        return (("g", contraction),)
    if not at_target:
        return (("x", contraction),)
    rest = [output for output in outputs if output not in at_source]
    return ("g", contraction.restricted(rest)), ("x", contraction.restricted(at_source))
