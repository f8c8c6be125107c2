"""Equivariant maps of node features, channel by channel: linear layers and the gate.

Each is written for blocks (2l+1, mul) of a row. In the layout "ir_mul" these are the numbers as they lie, and a linear
map is one matrix product over all components. In "mul_ir" they are transposed views, which a linear map copies.
"""

from __future__ import annotations

import math

import torch
from e3nn import o3
from torch import Tensor, nn

from ._functions import join, scale_each, silu
from ._layout import Rows, channels_last
from ._mixing import mix, mixing
from .radial import SILU_GAIN

# On an H100 (128 channels, l = 3, 23 paths) the kernels, forward and backward, take 70 us for 90 nodes and 2.4 ms for
# 5,000; copies and matrix products 200 us and 2.1 ms.
FUSED_NODES = 2048
TANH_GAIN = 1.5925374197228321  # makes E[(gain * tanh(z))^2] = 1 for a standard normal z


class Linear(nn.Module):
    r"""Mixes the channels of equal irreps.

    .. math::
        y_{v m} = \frac{1}{\sqrt{U}} \sum_{u=1}^{U} W_{u v} \, x_{u m}

    for each output irrep, u over all input channels of that irrep, in however many slots they come. The same as
    :class:`e3nn.o3.Linear` (weights standard normal, no bias); an output irrep that the input lacks is zero. The
    weights are the same in both layouts.

    Args:
        irreps_in: Input irreps; an irrep may occur in several slots.
        irreps_out: Output irreps, each once.
        layout: Order of the numbers in a row: "mul_ir" (e3nn's) or "ir_mul" (a component's channels together, the
            faster).
        fused: Whether a GPU does it by one generated kernel, and each derivative by one, instead of copies and a matrix
            product for each irrep. The kernels are for up to 2,048 nodes and numbers of channels that are multiples of
            four; the rest is left to matrix products.

    Shapes:
        - **input:** (n, irreps_in.dim) in the layout, float32 or float64
        - **output:** (n, irreps_out.dim) in the layout

    Raises:
        ValueError: x has not that shape, or there is no such layout.
    """

    def __init__(self, irreps_in, irreps_out, *, layout: str = "mul_ir", fused: bool = False):
        super().__init__()
        self.irreps_in, self.irreps_out, self.layout = o3.Irreps(irreps_in), _distinct(irreps_out), layout
        self._rows_in, self._rows_out = Rows(self.irreps_in, layout), Rows(self.irreps_out, layout)
        self._names = str(self.irreps_in), str(self.irreps_out)
        same = mixing(*self._names)
        self.fused = fused and same.in_fours
        self.slots, self.scales = same.sources, same.factors
        fan_in = [sum(self.irreps_in[k].mul for k in slots) for slots in self.slots]
        self.weights = nn.ParameterList(torch.randn(u, v) for u, (v, _) in zip(fan_in, self.irreps_out, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        self._rows_in.check(x)
        if self.fused and x.is_cuda and len(x) <= FUSED_NODES:
            return self._fused(x)
        blocks, out = self._rows_in.split(x), []
        weights = scale_each(self.weights, self.scales)
        for slots, weight, (_, dim) in zip(self.slots, weights, self._rows_out.blocks, strict=True):
            channels = [blocks[k] for k in slots] or [x.new_empty(len(x), dim, 0)]
            # In mul_ir this copies. The product from the left, weight.T times the block as it lies, would not, but
            # without gradients torch then repeats the weight for each node: four times slower on a CPU.
            out.append(channels_last(join(channels)) @ weight)
        return self._rows_out.join(out)

    def _fused(self, x: Tensor) -> Tensor:
        """By the generated kernel, which knows ir_mul only."""
        weights = join([weight.flatten() for weight in self.weights])
        return self._rows_out.from_ir_mul(mix(*self._names, self._rows_in.to_ir_mul(x), weights))

    def extra_repr(self) -> str:
        return f"{self.irreps_in} -> {self.irreps_out}, layout={self.layout!r}"


class SpeciesLinear(nn.Module):
    r"""A :class:`Linear` with weights of its own for each species.

    .. math::
        y_{v m} = \frac{1}{\sqrt{U}} \sum_{u=1}^{U} W^{(s)}_{u v} \, x_{u m}, \qquad s \text{ the atom's species}

    NequIP's self-connection (a fully connected tensor product with the one-hot species), up to normalisation. It is
    computed as one matrix product with the species' channels side by side, so time and memory grow with the number of
    species: good for tens, wasteful for the whole periodic table.

    Args:
        irreps_in: Input irreps, each once; those that the output lacks are not read.
        irreps_out: Output irreps, each once; one that the input lacks is zero.
        num_species: Number of species S.
        layout: As in :class:`Linear`.
        fused: As in :class:`Linear`.

    Shapes:
        - **input:** features (n, irreps_in.dim) in the layout, one-hot species (n, S) in the same dtype
        - **output:** (n, irreps_out.dim) in the layout

    Raises:
        ValueError: input and output have no irrep in common, x has not that shape, or there is no such layout.
    """

    def __init__(self, irreps_in, irreps_out, num_species: int, *, layout: str = "mul_ir", fused: bool = False):
        super().__init__()
        self.irreps_in, self.irreps_out, self.layout = _distinct(irreps_in), _distinct(irreps_out), layout
        self._rows_in, self._rows_out = Rows(self.irreps_in, layout), Rows(self.irreps_out, layout)
        self.read = [ir in self.irreps_out for _, ir in self.irreps_in]
        if not any(self.read):
            raise ValueError(f"irreps_out: {self.irreps_out} has no irrep of irreps_in, {self.irreps_in}")
        species_by_channels = [
            (num_species * mul, ir) for (mul, ir), read in zip(self.irreps_in, self.read, strict=True) if read
        ]
        # Its input is made here, in the faster layout. The output is small and is converted.
        self.linear = Linear(species_by_channels, self.irreps_out, layout="ir_mul", fused=fused)
        self.num_species = num_species

    def forward(self, x: Tensor, one_hot: Tensor) -> Tensor:
        # Only one species' channels are not zero: the fan-in is that of one species.
        one_hot = one_hot * math.sqrt(self.num_species)
        blocks = [
            (channels_last(block)[:, :, None, :] * one_hot[:, None, :, None]).flatten(1)
            for block, read in zip(self._rows_in.split(x), self.read, strict=True)
            if read
        ]
        return self._rows_out.from_ir_mul(self.linear(join(blocks)))

    def extra_repr(self) -> str:
        return f"num_species={self.num_species}, layout={self.layout!r}"


class Gate(nn.Module):
    r"""The gated nonlinearity: scalars pass through an activation, other irreps are multiplied by activated scalars.

    .. math::
        y_{0e} = \sigma(x_{0e}), \quad y_{0o} = \tanh(x_{0o}), \quad
        y_{u m}^{(l)} = \sigma(g_u^{(l)}) \, x_{u m}^{(l)}, \qquad \sigma = \mathrm{silu}

    with activations scaled to a second moment of 1, as :class:`e3nn.nn.Gate` does. Gates are even scalars that ride
    behind the even scalars of the input, so ``irreps_in`` has one 0e slot.

    Args:
        irreps_out: Irreps of the result, each once.
        layout: As in :class:`Linear`.

    Shapes:
        - **input:** (n, irreps_in.dim) in the layout
        - **output:** (n, irreps_out.dim) in the layout

    Raises:
        ValueError: x has not that shape, or there is no such layout.
    """

    def __init__(self, irreps_out, *, layout: str = "mul_ir"):
        super().__init__()
        self.irreps_out, self.layout = _distinct(irreps_out), layout
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
        gates, others = iter(gates), iter(others)
        out = []
        for slot in self._slots:
            if slot == "gated":
                out.append(next(gates) * next(others))
            else:
                out.append(scalars if slot == "even" else TANH_GAIN * torch.tanh(next(others)))
        return self._rows_out.join(out)

    def extra_repr(self) -> str:
        return f"{self.irreps_in} -> {self.irreps_out}, layout={self.layout!r}"


def _distinct(irreps) -> o3.Irreps:
    irreps = o3.Irreps(irreps)
    if len({ir for _, ir in irreps}) < len(irreps):
        raise ValueError(f"irreps: expected each irrep once, got {irreps}; Irreps.sort and simplify merge the slots")
    return irreps
