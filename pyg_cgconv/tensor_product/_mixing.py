"""Products that mix channels by weights which all edges or rows share (mode "uvw")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from e3nn import o3
from torch import Tensor

from .._functions import join
from ._description import outer
from ._layout import Rows

MIXED = "uvw"


class _Path(NamedTuple):
    """Where a path's products and weights lie, and the weights' shape (u, v, w)."""

    products: slice
    weights: slice
    shape: tuple[int, int, int]


class Mixing:
    r"""A product of mode "uvw" with shared weights, as one without weights and a linear map of its channels.

    .. math:: \sum_e \sum_{uv} W_{uvw} \, (x_{eu} \otimes y_{ev}) = \sum_{uv} W_{uvw} \sum_e (x_{eu} \otimes y_{ev})

    The map commutes with the sum over edges: it works on nodes, and no gradient has a row of weights for each edge.

    Args:
        product: e3nn's, with shared weights; all of its paths have mode "uvw".
        layout: Order of the numbers in the rows of inputs and result.
        on_graph: Whether rows of results are sums over edges.

    Attributes:
        description: The product without weights, of the channels u, v of each path.
    """

    def __init__(self, product: o3.TensorProduct, layout: str, on_graph: bool):
        self.description = outer(product, layout, on_graph)
        self._rows = Rows(product.irreps_out, layout)
        self._paths: list[list[_Path]] = [[] for _ in product.irreps_out]
        start = weight = 0
        for instruction in product.instructions:
            u, v, w = instruction.path_shape
            end, weight_end = start + u * v * product.irreps_out[instruction.i_out].ir.dim, weight + u * v * w
            self._paths[instruction.i_out].append(_Path(slice(start, end), slice(weight, weight_end), (u, v, w)))
            start, weight = end, weight_end

    def __call__(self, products: Tensor, weight: Tensor) -> Tensor:
        """The result of the product, from that of the one without weights and the weights (weight_numel,)."""
        blocks = [
            self._mixed(products, weight, paths, multiplicity, dim)
            for paths, (multiplicity, dim) in zip(self._paths, self._rows.blocks, strict=True)
        ]
        return self._rows.join(blocks)

    def _mixed(self, products: Tensor, weight: Tensor, paths: Sequence[_Path], multiplicity: int, dim: int) -> Tensor:
        """A block (n, dim, multiplicity) of the result."""
        if not paths:
            return products.new_zeros(products.shape[0], dim, multiplicity)
        channels, weights = [], []
        for columns, numbers, (u, v, w) in paths:
            block = products[:, columns].unflatten(1, (v, dim, u))
            channels.append(block.transpose(1, 2).flatten(2))
            weights.append(weight[numbers].view(u, v, w).transpose(0, 1).flatten(0, 1))
        return join(channels) @ join([w.mT for w in weights]).mT
