"""How a contraction is cut into passes, and a pass into kernels that fit the machine."""

from __future__ import annotations

from .polynomial import Contraction, kind


def owned_passes(contraction: Contraction) -> list[tuple[str, Contraction]]:
    """Passes in which every node's row is written by the one thread or warp that owns the node: no atomics, one order of additions.

    Returns (owner, contraction) pairs: owner "g" walks the edges of target nodes and may write rows of g, owner "x" walks those of
    source nodes and may write rows of x; rows of edges (y, w) go with either.
    """
    outputs = contraction.outputs
    at_target = [output for output in outputs if kind(output) == "g"]
    at_source = [output for output in outputs if kind(output) == "x"]
    if not at_source:
        return [("g", contraction)]
    if not at_target:
        return [("x", contraction)]
    rest = [output for output in outputs if output not in at_source]
    return [("g", contraction.restricted(rest)), ("x", contraction.restricted(at_source))]
