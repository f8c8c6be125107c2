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
        of_pairs: Whether these are the pairs u<v of the inputs' channels.
        after: What makes the result of the paths' products; without it, the contraction does.
    """

    factors: Factors
    of_pairs: bool = False
    after: type[Mixing] | None = None

    @property
    def mixes(self) -> bool:
        """Whether weights belong to `after`, and not to the contraction."""
        return self.after is Mixing


MODES = {
    "uvu": Mode(Factors.LEFT),
    "uvuv": Mode(Factors.LEFT, after=Copies),
    "uvw": Mode(Factors.LEFT, after=Mixing),
    "uvv": Mode(Factors.RIGHT),
    "uuu": Mode(Factors.BOTH),
    "uuw": Mode(Factors.BOTH, after=Mixing),
    "uvu<v": Mode(Factors.BOTH, of_pairs=True),
    "u<vw": Mode(Factors.BOTH, of_pairs=True, after=Mixing),
}


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
        mode = MODES[name]
        paths = [i for i in whole.instructions if i.connection_mode == name and prod(i.path_shape)]
        slots = [i.i_in1 for i in paths], [i.i_in2 for i in paths]
        irreps_in, irreps_out, starts = (whole.irreps_in1, whole.irreps_in2), whole.irreps_out, [i.i_out for i in paths]
        layout_in = layout_out = layout
        self._before = self._after = None
        has_maps = mode.mixes and not whole.shared_weights
        if mode.of_pairs:
            self._before = [_Pairs(irreps, layout, used) for irreps, used in zip(irreps_in, slots, strict=True)]
            irreps_in, layout_in = tuple(pairs.irreps for pairs in self._before), IR_MUL
        if mode.after is not None:
            copies = [1 if mode.factors is Factors.BOTH else irreps_in[1][slot].mul for slot in slots[1]]
            self._after = mode.after(paths, copies, irreps_out, layout)
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
            x, y = self._before[0](x, 0), self._before[1](y, 1)
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
    """The pairs u<v of channels of the slots that are used, in ir_mul: u for x, v for y."""

    def __init__(self, irreps: o3.Irreps, layout: str, used: Sequence[int]):
        self._rows, self._used = Rows(irreps, layout), sorted({*used})
        counts = [(mul * (mul - 1) // 2 if slot in used else 0, ir) for slot, (mul, ir) in enumerate(irreps)]
        self.irreps = o3.Irreps(counts)

    def __call__(self, features: Tensor, end: int) -> Tensor:
        blocks = self._rows.split(features)
        return join([_of_pairs(blocks[slot], end).flatten(1) for slot in self._used])


def _of_pairs(block: Tensor, end: int) -> Tensor:
    """(n, dim, pairs) of (n, dim, channels). e3nn's order of pairs is that of the upper triangle, row by row."""
    channels = block.shape[-1]
    index = torch.triu_indices(channels, channels, 1, device=block.device)[end]
    # Gradients add up in one order, on a GPU only with the one, on a CPU only with the other.
    return block[..., index] if block.is_cuda else block.index_select(-1, index)
