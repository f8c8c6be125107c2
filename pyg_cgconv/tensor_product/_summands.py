"""Which kernel serves which of e3nn's modes: a product is the sum of a part for each mode, which is one contraction.

A contraction acts on each channel alone. What a mode does beyond that comes before it (pairs of channels) or after it
(:class:`Mixing`, :class:`Copies`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import groupby
from math import prod
from typing import NamedTuple

import torch
from e3nn import o3
from torch import Tensor

from .._functions import join
from ._description import Factors, product
from ._layout import Rows
from ._mixing import Copies, Mixing

IR_MUL = "ir_mul"
Contract = Callable[[str, Sequence[Tensor]], Tensor]


class Mode(NamedTuple):
    """How a mode is computed.

    Attributes:
        factors: Which factors of the contraction have channels.
        pairs: What makes these of the inputs' channels, if they are pairs (u, v) of them.
        after: What makes the result of the paths' products; without it, the contraction does.
    """

    factors: Factors
    pairs: Callable[[int, int], Tensor] | None = None
    after: type[Mixing] | None = None

    @property
    def mixes(self) -> bool:
        """Whether weights belong to `after`, and not to the contraction."""
        return self.after is Mixing


def _upper(u: int, v: int) -> Tensor:
    """The pairs u<v, (2, pairs). e3nn's order of them is that of the upper triangle, row by row."""
    return torch.triu_indices(u, v, 1)


def _every(u: int, v: int) -> Tensor:
    """All pairs, (2, u v)."""
    return torch.cartesian_prod(torch.arange(u), torch.arange(v)).mT


MODES = {
    "uvu": Mode(Factors.LEFT),
    "uvuv": Mode(Factors.LEFT, after=Copies),
    "uvw": Mode(Factors.LEFT, after=Mixing),
    "uvv": Mode(Factors.RIGHT),
    "uuu": Mode(Factors.BOTH),
    "uuw": Mode(Factors.BOTH, after=Mixing),
    "uvu<v": Mode(Factors.BOTH, pairs=_upper),
    "u<vw": Mode(Factors.BOTH, pairs=_upper, after=Mixing),
}

MANY = 16
"""Copies for each of which a kernel has code of its own, at most: with 64, one would take minutes to compile."""
OF_MANY = {
    "uvuv": Mode(Factors.BOTH, pairs=_every),
    "uvw": Mode(Factors.BOTH, pairs=_every, after=Mixing),
}
"""The same modes with more copies: their products' channels are gathered before."""


def without_kernel(whole: o3.TensorProduct) -> list[str]:
    """Why a product has no kernel on a graph; empty if it has one. Of rows, all have."""
    right = {mode for mode in _modes(whole) if MODES[mode].factors is Factors.RIGHT}
    if not right:
        return []
    reason = (
        f"instructions: modes {sorted(right)} have no fused kernel on a graph; pyg_cgconv.TensorProduct has one: give "
        "it x[source] and edge_attr, and sum its rows over targets"
    )
    return [reason]


def summands(whole: o3.TensorProduct, layout: str, on_graph: bool) -> Summands | None:
    """A product that has kernels; None if it has no paths with channels, and is zero.

    Args:
        layout: Order of the numbers in the rows of inputs and result.
        on_graph: Whether x is of an edge's source, y of the edge, and rows of results are sums over edges.
    """
    return Summands(whole, layout, on_graph) if _modes(whole) else None


class Summands:
    """A product as the sum of a contraction for each mode.

    Attributes:
        descriptions: The problems of the contractions.
    """

    def __init__(self, whole: o3.TensorProduct, layout: str, on_graph: bool):
        weighted = [i for i in whole.instructions if i.has_weight and prod(i.path_shape)]
        runs = [(mode, list(run)) for mode, run in groupby(weighted, lambda i: i.connection_mode)]
        self._lengths = [sum(prod(i.path_shape) for i in run) for _, run in runs]
        modes = _modes(whole)
        self._runs = [[n for n, (other, _) in enumerate(runs) if other == mode] for mode in modes]
        self._summands = [_Summand(whole, mode, layout, on_graph) for mode in modes]
        self.descriptions = [description for summand in self._summands for description in summand.descriptions]

    def __call__(self, contract: Contract, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """The product's result; `contract(description, operands)` evaluates a contraction."""
        # A gradient by pieces of one split is one concatenation.
        pieces = weight.split(self._lengths, dim=-1) if len(self._lengths) > 1 else [weight]
        weights = [join([pieces[n] for n in runs]) if runs else None for runs in self._runs]
        results = [summand(contract, x, y, w) for summand, w in zip(self._summands, weights, strict=True)]
        return reduce(torch.add, results)


class _Summand:
    """The paths of one mode.

    Attributes:
        descriptions: The problems of their contractions: the product, and linear maps of each edge or row.
    """

    def __init__(self, whole: o3.TensorProduct, name: str, layout: str, on_graph: bool):
        paths = [i for i in whole.instructions if i.connection_mode == name and prod(i.path_shape)]
        is_many = name in OF_MANY and max(whole.irreps_in2[i.i_in2].mul for i in paths) > MANY
        mode = (OF_MANY if is_many else MODES)[name]
        slots = [i.i_in1 for i in paths], [i.i_in2 for i in paths]
        irreps_in, irreps_out, starts = (whole.irreps_in1, whole.irreps_in2), whole.irreps_out, [i.i_out for i in paths]
        layout_in = layout_out = layout
        self._before = self._after = None
        has_maps = mode.mixes and not whole.shared_weights
        if mode.pairs is not None:
            used = list(dict.fromkeys(zip(*slots, strict=True)))
            channels = [mode.pairs(irreps_in[0][i].mul, irreps_in[1][j].mul) for i, j in used]
            self._before = [
                _Pairs(irreps, layout, [pair[end] for pair in used], [index[end] for index in channels])
                for end, irreps in enumerate(irreps_in)
            ]
            irreps_in, layout_in = tuple(pairs.irreps for pairs in self._before), IR_MUL
            slots = ([used.index(pair) for pair in zip(*slots, strict=True)],) * 2
        if mode.after is not None:
            has_copies = mode.factors is not Factors.BOTH
            shapes = [
                (irreps_in[0][i].mul, irreps_in[1][j].mul if has_copies else 1) for i, j in zip(*slots, strict=True)
            ]
            self._after = mode.after(paths, shapes, irreps_out, layout)
            irreps_out, layout_out, starts = o3.Irreps(self._after.slots), IR_MUL, self._after.starts
        weighted, factors = [i.has_weight and not mode.mixes for i in paths], [i.path_weight for i in paths]
        description = product(
            mode.factors,
            (*irreps_in, irreps_out),
            zip(*slots, starts, weighted, factors, strict=True),
            (layout_in, layout_out),
            apart=mode.after is not None,
            on_graph=on_graph,
            summed=not has_maps,
            shared_weights=whole.shared_weights,
        )
        self.descriptions = [description]
        if self._after is not None and has_maps:
            self.descriptions.append(self._after.of_each_row(on_graph))
        self._exchanged, self._mixes = mode.factors is Factors.RIGHT, mode.mixes

    def __call__(self, contract: Contract, x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        """Their part of the result; the weights are those of these paths, None if there are none."""
        if self._before is not None:
            x, y = (pairs(features) for pairs, features in zip(self._before, (x, y), strict=True))
        operands = [y, x] if self._exchanged else [x, y]
        if weight is not None and not self._mixes:
            operands.append(weight)
        out = contract(self.descriptions[0], operands)
        if self._after is not None and len(self.descriptions) > 1:
            return contract(self.descriptions[1], [out, self._after.with_ones(out, weight)])
        return out if self._after is None else self._after(out, weight if self._mixes else None)


def _modes(whole: o3.TensorProduct) -> list[str]:
    """The modes of the paths that have channels, in the order of the instructions."""
    return list(dict.fromkeys(i.connection_mode for i in whole.instructions if prod(i.path_shape)))


class _Pairs:
    """Channels of one factor for pairs of slots, in ir_mul.

    Args:
        irreps, layout: the factor's.
        used: its slot in each pair of slots.
        channels: of that slot those that come in pairs.

    Attributes:
        irreps: a slot for each pair of slots.
    """

    def __init__(self, irreps: o3.Irreps, layout: str, used: Sequence[int], channels: Sequence[Tensor]):
        self._rows, self._used, self._channels = Rows(irreps, layout), used, channels
        self.irreps = o3.Irreps([(len(index), irreps[slot].ir) for slot, index in zip(used, channels, strict=True)])

    def __call__(self, features: Tensor) -> Tensor:
        blocks = self._rows.split(features)
        chosen = [_chosen(blocks[slot], index) for slot, index in zip(self._used, self._channels, strict=True)]
        return join([block.flatten(1) for block in chosen])


def _chosen(block: Tensor, channels: Tensor) -> Tensor:
    """These channels of (n, dim, channels)."""
    channels = channels.to(block.device)
    # Gradients add up in one order, on a GPU only with the one, on a CPU only with the other.
    return block[..., channels] if block.is_cuda else block.index_select(-1, channels)
