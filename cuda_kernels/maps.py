"""Linear maps whose weights each site has for itself: out[v, k] += weight[u, v] * x[u, k].

Their weights are most of what is read and written, and each number of them is used a few times only: a walk over the
sites reads every operand once, whatever it computes. Linear maps with weights that all sites share are in `linear`.
"""

from __future__ import annotations

from .contraction import Contraction
from .linear import Product, products


def sums_of(contraction: Contraction) -> dict[str, list[Product]]:
    """The products that each output is the sum of."""
    found = products(contraction)
    return {output: [product for product in found if product.output == output] for output in contraction.outputs}
