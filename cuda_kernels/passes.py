"""How the derivatives of a form are shared out to passes over its sites."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from .contraction import Contraction
from .problem import Channels, Index, Problem


class Pass(NamedTuple):
    """A walk over all sites.

    Attributes:
        by: whose sites are walked together: those of a target or source node, which then owns its rows. EDGE where
            there is no graph: sites are rows, and nothing is owned.
        contraction: what the walk computes.
    """

    by: Index
    contraction: Contraction


@cache
def owned_passes(problem: Problem, contraction: Contraction) -> tuple[Pass, ...]:
    """Passes in which every row is written by the one thread or warp that owns it: no atomics, one order of additions.

    A walk by target writes rows of targets, one by source those of sources. Rows of edges go with either.
    """
    if not problem.has_graph or problem.is_polynomial:
        return single_pass(problem, contraction)
    at_source = [output for output in contraction.outputs if problem.operand(output).index is Index.SOURCE]
    others = [output for output in contraction.outputs if output not in at_source]
    at_target = [output for output in others if problem.operand(output).index is Index.TARGET]
    if not at_source:
        return (Pass(Index.TARGET, contraction),)
    if not at_target:
        return (Pass(Index.SOURCE, contraction),)
    by_target, by_source = contraction.restricted(others), contraction.restricted(at_source)
    return Pass(Index.TARGET, by_target), Pass(Index.SOURCE, by_source)


@cache
def single_pass(problem: Problem, contraction: Contraction) -> tuple[Pass, ...]:
    """One pass for everything: sums that its rows do not own need atomic additions.

    A polynomial has a further one for what is summed over the nodes of an element: the two have little arithmetic in
    common, and together not enough registers.
    """
    by = Index.TARGET if problem.has_graph else Index.EDGE
    summed = [output for output in contraction.outputs if problem.operand(output).index is Index.TARGET]
    if not problem.is_polynomial or len(summed) in (0, len(contraction.outputs)):
        return (Pass(by, contraction),)
    others = [output for output in contraction.outputs if output not in summed]
    return Pass(by, contraction.restricted(others)), Pass(by, contraction.restricted(summed))


@cache
def zeroed_outputs(problem: Problem, contraction: Contraction, by: Index) -> list[str]:
    """The outputs that a GPU pass adds to, or does not write all of: they must be zero before it."""

    def is_written(output: str) -> bool:
        operand = problem.operand(output)
        if operand.channels is Channels.NONE:
            return True
        added = operand.index in (Index.TARGET, Index.SOURCE) and operand.index is not by
        return not added and problem.covers(output)

    return [output for output in contraction.outputs if not is_written(output)]
