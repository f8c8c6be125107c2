"""Results of modes in which each path has products of its own: they are mixed, or their channels put in order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
from e3nn import o3
from torch import Tensor

from .._functions import join
from ._description import maps
from ._layout import Rows, times


class _Path(NamedTuple):
    """A path's number, and the shape (u, v, w) of its weights if it has any."""

    number: int
    has_weight: bool
    shape: tuple[int, int, int]


class Mixing:
    r"""A product of mode "uvw" with shared weights, as a linear map of the channels of one without weights.

    .. math:: \sum_e \sum_{uv} W_{uvw} \, (x_{eu} \otimes y_{ev}) = \sum_{uv} W_{uvw} \sum_e (x_{eu} \otimes y_{ev})

    The map commutes with the sum over edges: it works on nodes, and no gradient has a row of weights for each edge.
    Modes "uuw" and "u<vw" have one index u, of channels or of pairs of them, in place of u and v.

    Args:
        instructions: e3nn's, of one mode; those without weights sum their channels.
        products: How many channels u and copies v the products of each have.
        irreps_out: Irreps of the result.
        layout: Order of the numbers in its rows.

    Attributes:
        slots: Slots of the products, whose rows are in ir_mul: for each path and copy v, channels u of an irrep.
        starts: The first slot of each path.
    """

    def __init__(self, instructions: Sequence, products: Sequence[tuple[int, int]], irreps_out: o3.Irreps, layout: str):
        self.slots: list[tuple[int, o3.Irrep]] = []
        self.starts: list[int] = []
        self._rows, self._irreps, self._layout = Rows(irreps_out, layout), irreps_out, layout
        self._shapes: list[tuple[int, int, int, int]] = []
        self._paths: list[list[_Path]] = [[] for _ in irreps_out]
        self._lengths: list[int] = []
        self._weights: list[int] = []
        for number, (instruction, (u, v)) in enumerate(zip(instructions, products, strict=True)):
            w, ir = irreps_out[instruction.i_out]
            self._paths[instruction.i_out].append(_Path(number, instruction.has_weight, (u, v, w)))
            self._shapes.append((u, v, w, instruction.i_out))
            self._lengths.append(u * v * ir.dim)
            self._weights.append(u * v * w if instruction.has_weight else 0)
            self.starts.append(len(self.slots))
            self.slots += [(u, ir)] * v

    def __call__(self, products: Tensor, weight: Tensor | None) -> Tensor:
        """The result of the product, from that of the one without weights and the weights (weight_numel,)."""
        # A gradient by the pieces of one split is one concatenation.
        pieces = products.split(self._lengths, dim=1)
        weights = [] if weight is None else weight.to(products.dtype).split(self._weights, dim=-1)
        blocks = [
            self._mixed(pieces, weights, paths, dim)
            if paths
            else products.new_zeros(products.shape[0], dim, multiplicity)
            for paths, (multiplicity, dim) in zip(self._paths, self._rows.blocks, strict=True)
        ]
        return self._rows.join(blocks)

    def of_each_row(self, on_graph: bool) -> str:
        """The problem of the same map with weights of each edge or row, if `on_graph` with a sum over edges."""
        return maps(self._shapes, self._irreps, self._layout, on_graph)

    def with_ones(self, products: Tensor, weight: Tensor | None) -> Tensor:
        """Weights of each edge or row, those of paths that have none being one."""
        if weight is not None and all(self._weights):
            return weight
        pieces = iter([] if weight is None else weight.split([n for n in self._weights if n], dim=-1))
        ones = products if weight is None else weight
        return join(
            [
                next(pieces) if length else ones.new_ones(products.shape[0], u * v * w)
                for length, (u, v, w, _) in zip(self._weights, self._shapes, strict=True)
            ]
        )

    def _mixed(self, products: Sequence[Tensor], weights: Sequence[Tensor], paths: list[_Path], dim: int) -> Tensor:
        """A block (n, dim, w) of the result."""
        channels, matrices = [], []
        for number, has_weight, (u, v, w) in paths:
            block = products[number].unflatten(1, (v, dim, u))
            channels.append(block.transpose(1, 2).flatten(2))
            matrix = weights[number].view(u, v, w) if has_weight else block.new_ones(u, v, w)
            matrices.append(matrix.transpose(0, 1).flatten(0, 1))
        return times(join(channels), join([matrix.mT for matrix in matrices]).mT)


class Copies(Mixing):
    """A product of mode "uvuv": nothing is mixed, channel u of copy v becomes channel uv."""

    def _mixed(self, products: Sequence[Tensor], weights: Sequence[Tensor], paths: list[_Path], dim: int) -> Tensor:
        blocks = [products[number].unflatten(1, (v, dim, u)) for number, _, (u, v, _) in paths]
        return reduce(torch.add, [block.permute(0, 2, 3, 1).flatten(2) for block in blocks])
