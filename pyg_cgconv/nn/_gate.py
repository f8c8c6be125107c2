"""The gated nonlinearity."""

from __future__ import annotations

import torch
from e3nn import o3
from torch import Tensor, nn

from .._functions import silu
from .._torch import NotScripted
from ..tensor_product import IrrepsLike, Rows
from ._linear import distinct
from ._radial import SILU_GAIN

TANH_GAIN = 1.5925374197228321  # makes E[(gain * tanh(z))^2] = 1 for a standard normal z


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

    Shapes:
        - **input:** (n, irreps_in.dim) in the layout
        - **output:** (n, irreps_out.dim) in the layout

    Raises:
        ValueError: x has not that shape, or there is no such layout.
    """

    def __init__(self, irreps_out: IrrepsLike, *, layout: str = "mul_ir"):
        super().__init__()
        self.irreps_out, self.layout = distinct(irreps_out), layout
        self.num_even = self.irreps_out.count("0e")
        self.gated = [mul for mul, ir in self.irreps_out if ir.l > 0]
        others = [(mul, ir) for mul, ir in self.irreps_out if ir != o3.Irrep("0e")]
        self.irreps_in = o3.Irreps([(self.num_even + sum(self.gated), "0e"), *others])
        self._slots = ["gated" if ir.l > 0 else "even" if ir.p == 1 else "odd" for _, ir in self.irreps_out]
        self._rows_in, self._rows_out = Rows(self.irreps_in, layout), Rows(self.irreps_out, layout)

    def forward(self, x: Tensor) -> Tensor:
        even, *others = self._rows_in.split(x)
        activated = SILU_GAIN * silu(even)
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
