"""Linear maps whose weights each site has for itself: out[v, k] += weight[u, v] * x[u, k].

Their weights are most of what is read and written, and each number of them is used a few times only: a walk over the
sites reads every operand once, whatever it computes. Linear maps with weights that all sites share are in `linear`.
"""

from __future__ import annotations

from typing import NamedTuple

from .contraction import Contraction
from .linear import Product, products
from .problem import LEFT, OUT, WEIGHT, Block, Problem


class Map(NamedTuple):
    """A path: the blocks of features, of the output and of weights; the coefficient of all components."""

    source: Block
    target: Block
    weights: Block
    factor: float


def maps(problem: Problem) -> list[Map]:
    """The paths, in order."""
    out, left, weight = (problem.row(problem.form[place]).blocks for place in (OUT, LEFT, WEIGHT))
    return [
        Map(left[p.block(LEFT)], out[p.block(OUT)], weight[p.block(WEIGHT)], p.coefficients[0][3])
        for p in problem.paths
    ]


def sums_of(contraction: Contraction) -> dict[str, list[Product]]:
    """The products that each output is the sum of."""
    found = products(contraction)
    return {output: [product for product in found if product.output == output] for output in contraction.outputs}
