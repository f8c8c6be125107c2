"""The gated nonlinearity."""

from __future__ import annotations

from itertools import accumulate

import torch
from e3nn import o3
from torch import Tensor, nn
from torch.nn import functional

from cuda_kernels.gate import Gains, Kind, Unit

from .._torch import NotScripted
from ..cuda_graphs import is_for_graph
from ..ops import Gates, gated
from ..tensor_product import IrrepsLike, Rows
from ._linear import distinct
from ._radial import SILU_GAIN

TANH_GAIN = 1.5925374197228321  # makes E[(gain * tanh(z))^2] = 1 for a standard normal z

GATE_GAINS = Gains(SILU_GAIN, TANH_GAIN)


class Gate(NotScripted, nn.Module):
    r"""The gated nonlinearity: scalars pass through an activation, other irreps are multiplied by activated scalars.

    .. math::
        y_{0e} = \sigma(x_{0e}), \quad y_{0o} = \tanh(x_{0o}), \quad
        y_{u m}^{(l)} = \sigma(g_u^{(l)}) \, x_{u m}^{(l)}, \qquad \sigma = \mathrm{silu}

    with activations scaled to a second moment of 1, as :class:`e3nn.nn.Gate` does. The gates g are further even scalars
    of the input, one for each channel that they multiply. They come after the other even scalars, in the same 0e slot.
    The layer before a gate has ``irreps_in`` of the gate as its output.

    Args:
        irreps_out: Irreps of the result, each once. ``irreps_in``, an attribute, are those of the input.
        layout: As in :class:`Linear`.
        fused: Whether it is a kernel, and its derivatives are, where a CUDA graph is captured.

    Shapes:
        - **input:** (n, irreps_in.dim) in the layout
        - **output:** (n, irreps_out.dim) in the layout

    Raises:
        ValueError: x has not that shape, or there is no such layout.
    """

    fused = False  # of gates that earlier versions have saved, which have no units

    def __init__(self, irreps_out: IrrepsLike, *, layout: str = "mul_ir", fused: bool = True):
        super().__init__()
        self.irreps_out, self.layout = distinct(irreps_out), layout
        self.num_even = self.irreps_out.count("0e")
        self.gated = [mul for mul, ir in self.irreps_out if ir.l > 0]
        others = [(mul, ir) for mul, ir in self.irreps_out if ir != o3.Irrep("0e")]
        self.irreps_in = o3.Irreps([(self.num_even + sum(self.gated), "0e"), *others])
        self._slots = ["gated" if ir.l > 0 else "even" if ir.p == 1 else "odd" for _, ir in self.irreps_out]
        self._rows_in, self._rows_out = Rows(self.irreps_in, layout), Rows(self.irreps_out, layout)
        self.fused, self._units = fused, self._made_units()

    def forward(self, x: Tensor) -> Tensor:
        if not (self.fused and is_for_graph(x)):
            return self._plain(x)
        self._rows_in.check(x)
        return gated(Gates(self._units, self._rows_in.dim, self._rows_out.dim, GATE_GAINS, self._plain), x)

    def _made_units(self) -> tuple[Unit, ...]:
        """Each scalar, and where what it multiplies stands."""
        starts = [
            list(accumulate((u * d for u, d in rows.blocks), initial=0)) for rows in (self._rows_in, self._rows_out)
        ]
        units, gate, others = [], self.num_even, iter(starts[0][1:])
        for slot, (channels, dim), out in zip(self._slots, self._rows_out.blocks, starts[1], strict=False):
            by_channel, by_component = (1, channels) if self.layout == "ir_mul" else (dim, 1)
            first = 0 if slot == "even" else next(others)
            for u in range(channels):
                if slot == "gated":
                    place = u * by_channel
                    units.append(Unit(Kind.SILU, gate + u, out + place, first + place, by_component, dim))
                else:
                    units.append(Unit(Kind.SILU if slot == "even" else Kind.TANH, first + u, out + u))
            gate += channels if slot == "gated" else 0
        return tuple(units)

    def _plain(self, x: Tensor) -> Tensor:
        even, *others = self._rows_in.split(x)
        activated = SILU_GAIN * functional.silu(even)
        scalars, *gates = activated.split([self.num_even, *self.gated], dim=-1)
        gate, other = iter(gates), iter(others)
        out = []
        for slot in self._slots:
            if slot == "gated":
                out.append(next(gate) * next(other))
            else:
                out.append(scalars if slot == "even" else TANH_GAIN * torch.tanh(next(other)))
        return self._rows_out.join(out)

    def extra_repr(self) -> str:
        return f"{self.irreps_in} -> {self.irreps_out}, layout={self.layout!r}"
