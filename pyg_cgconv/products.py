"""Products of a node's features with themselves: correlations between its neighbours."""

from __future__ import annotations

import math
from itertools import accumulate, combinations_with_replacement

import torch
from e3nn import o3
from torch import Tensor

from ._exact import ExactBuffers
from .equivariant import Linear


class NodeProducts(ExactBuffers):
    r"""Products of two irreps of a node, channel by channel, between linear maps: MACE's contraction of correlation
    order 2 (Batatia et al., `Higher order equivariant message passing neural networks
    <https://arxiv.org/abs/2206.07697>`_), with the same weights for all species.

    .. math::
        y^{(l_1 l_2 l)}_{u k} = \sqrt{2 l + 1} \sum_{i j}
            \begin{pmatrix} l_1 & l_2 & l \\ i & j & k \end{pmatrix}
            (\mathbf{L} \mathbf{x})^{(l_1)}_{u i} \, (\mathbf{L} \mathbf{x})^{(l_2)}_{u j}, \qquad
        \mathbf{x}' = \mathbf{L}' \mathbf{y}

    for all :math:`l_1 \le l_2` and the l of the output, without those that are zero because they are antisymmetric. A
    sum over neighbours times itself is a sum over pairs of neighbours: an atom sees the angles between them at once.

    Args:
        irreps_in: Features, in the layout ir_mul; an irrep may occur in several slots.
        channels: Channels u of each irrep that is multiplied.
        irreps_out: Wanted features, each irrep once.

    Shapes:
        - **input:** (n, irreps_in.dim)
        - **output:** (n, irreps_out.dim)
    """

    exact = ("coefficients",)

    def __init__(self, irreps_in, channels: int, irreps_out):
        super().__init__()
        self.channels, self.irreps_out = channels, o3.Irreps(irreps_out)
        self.factors = o3.Irreps([(channels, ir) for ir in sorted({ir for _, ir in o3.Irreps(irreps_in)})])
        products = {ir: _products([ir for _, ir in self.factors], ir) for _, ir in self.irreps_out}
        self.irreps_products = o3.Irreps([(channels * len(found), ir) for ir, found in products.items() if found])
        # Rows are (irrep, component, product): the layout ir_mul.
        rows = [torch.stack(found).permute(3, 0, 1, 2).flatten(0, 1) for found in products.values() if found]
        self.register_buffer("coefficients", torch.cat(rows).flatten(1), persistent=False)
        self.linear_in = Linear(irreps_in, self.factors)
        self.linear_out = Linear(self.irreps_products, self.irreps_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_out(self.multiplied(self.linear_in(x)))

    def multiplied(self, x: Tensor) -> Tensor:
        """The products y (n, irreps_products.dim) of features (n, factors.dim)."""
        x = x.unflatten(1, (-1, self.channels))
        pairs = (x[:, :, None] * x[:, None, :]).flatten(1, 2)
        return (self.coefficients.to(x.dtype) @ pairs).flatten(1)

    def extra_repr(self) -> str:
        return f"{self.factors} -> {self.irreps_products}"


def _products(irreps: list[o3.Irrep], wanted: o3.Irrep) -> list[Tensor]:
    """Coefficients (m, m, 2l+1), by components of all ``irreps`` twice, of each product that is ``wanted``."""
    ends = list(accumulate(ir.dim for ir in irreps))
    found = []
    for (end_a, a), (end_b, b) in combinations_with_replacement(zip(ends, irreps, strict=True), 2):
        antisymmetric = a == b and (2 * a.l + wanted.l) % 2
        if wanted in a * b and not antisymmetric:
            coefficients = torch.zeros(ends[-1], ends[-1], wanted.dim, dtype=torch.float64)
            block = coefficients[end_a - a.dim : end_a, end_b - b.dim : end_b]
            block.copy_(math.sqrt(wanted.dim) * o3.wigner_3j(a.l, b.l, wanted.l, dtype=torch.float64))
            found.append(coefficients)
    return found
