"""Equivariant maps of node features, channel by channel: linear layers and the gate.

Features lie in the layout "ir_mul": the block of ``mul x ir`` is (2l+1, mul), component-major. A linear map is then one
matrix product over all components, and a gate one broadcast, with no transposition.
"""

from __future__ import annotations

import math

import torch
from e3nn import o3
from torch import Tensor, nn

from cuda_kernels.linear import in_fours

from ..ops import DTYPES, contract, join, scale_each, silu
from ..tensor_product import describe, problem_of
from ._radial import SILU_GAIN

# On an H100 (128 channels, l = 3, 23 paths) the kernels, forward and backward, take 70 us for 90 nodes and 2.4 ms for
# 5,000; copies and matrix products 200 us and 2.1 ms.
FUSED_NODES = 2048
TANH_GAIN = 1.5925374197228321  # makes E[(gain * tanh(z))^2] = 1 for a standard normal z


def split_irreps(features: Tensor, irreps: o3.Irreps) -> list[Tensor]:
    """The blocks (n, 2l+1, mul) of features (n, irreps.dim) in the layout ir_mul; views, no copy."""
    blocks = features.split([mul * ir.dim for mul, ir in irreps], dim=-1)
    return [block.unflatten(-1, (ir.dim, mul)) for (mul, ir), block in zip(irreps, blocks, strict=True)]


class Linear(nn.Module):
    r"""Mixes the channels of equal irreps, in the layout ir_mul.

    .. math::
        y_{v m} = \frac{1}{\sqrt{U}} \sum_{u=1}^{U} W_{u v} \, x_{u m}

    for each output irrep, u over all input channels of that irrep, in however many slots they come. The same as
    :class:`e3nn.o3.Linear` (weights standard normal, no bias); an output irrep that the input lacks is zero.

    Args:
        irreps_in: Input irreps; an irrep may occur in several slots.
        irreps_out: Output irreps, each once.
        fused: Whether a GPU does it by one generated kernel, and each derivative by one, instead of copies and a matrix
            product for each irrep. The kernels are for up to 2,048 nodes and numbers of channels that are multiples of
            four; the rest is left to matrix products.

    Shapes:
        - **input:** (n, irreps_in.dim), float32 or float64
        - **output:** (n, irreps_out.dim)

    Raises:
        ValueError: x has not that shape.
    """

    def __init__(self, irreps_in, irreps_out, *, fused: bool = False):
        super().__init__()
        self.irreps_in, self.irreps_out = o3.Irreps(irreps_in), _distinct(irreps_out)
        self._dim = self.irreps_in.dim
        self.slots = [[k for k, (_, ir_in) in enumerate(self.irreps_in) if ir_in == ir] for _, ir in self.irreps_out]
        fan_in = [sum(self.irreps_in[k].mul for k in slots) for slots in self.slots]
        self.scales = [1 / math.sqrt(max(1, u)) for u in fan_in]
        self._description = _fused_description(self.irreps_in, self.irreps_out) if fused and any(fan_in) else None
        self.weights = nn.ParameterList(torch.randn(u, v) for u, (v, _) in zip(fan_in, self.irreps_out, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 2 or x.shape[1] != self._dim:
            raise ValueError(f"x: expected shape (n, {self._dim}), features {self.irreps_in}, got {tuple(x.shape)}")
        if self._description is not None and x.is_cuda and len(x) <= FUSED_NODES:
            weights = join([weight.flatten() for weight in self.weights])
            _check_same(x, weights)
            return contract(self._description, (x, weights))
        blocks = split_irreps(x, self.irreps_in)
        out = []
        weights = scale_each(self.weights, self.scales)
        for slots, weight, (_, ir) in zip(self.slots, weights, self.irreps_out, strict=True):
            channels = [blocks[k] for k in slots] or [x.new_empty(len(x), ir.dim, 0)]
            out.append((join(channels) @ weight).flatten(1))
        return join(out)

    def extra_repr(self) -> str:
        return f"{self.irreps_in} -> {self.irreps_out}"


def _fused_description(irreps_in: o3.Irreps, irreps_out: o3.Irreps) -> str | None:
    """What the kernels are generated from, None if they do not serve such multiplicities."""
    description = describe.linear(irreps_in, irreps_out)
    return description if in_fours(problem_of(description, "float32")) else None


def _check_same(x: Tensor, weights: Tensor) -> None:
    if x.device != weights.device:
        raise ValueError(f"x: on {x.device}, but the weights are on {weights.device}; move one of them with .to()")
    if x.dtype != weights.dtype:
        raise TypeError(f"x: dtype {x.dtype} differs from that of the weights, {weights.dtype}; convert one of them")
    if x.dtype not in DTYPES:
        raise TypeError(f"x: dtype {x.dtype} has no kernel; convert x and the layer to float32 or float64")


class SpeciesLinear(nn.Module):
    r"""A :class:`Linear` with weights of its own for each species, in the layout ir_mul.

    .. math::
        y_{v m} = \frac{1}{\sqrt{U}} \sum_{u=1}^{U} W^{(s)}_{u v} \, x_{u m}, \qquad s \text{ the atom's species}

    NequIP's self-connection (a fully connected tensor product with the one-hot species), up to normalisation. It is
    computed as one matrix product with the species' channels side by side, so time and memory grow with the number of
    species: good for tens, wasteful for the whole periodic table.

    Args:
        irreps_in: Input irreps, each once; those that the output lacks are not read.
        irreps_out: Output irreps, each once; one that the input lacks is zero.
        num_species: Number of species S.
        fused: As in :class:`Linear`.

    Shapes:
        - **input:** features (n, irreps_in.dim), one-hot species (n, S) in the same dtype
        - **output:** (n, irreps_out.dim)
    """

    def __init__(self, irreps_in, irreps_out, num_species: int, *, fused: bool = False):
        super().__init__()
        self.irreps_in, self.irreps_out = _distinct(irreps_in), _distinct(irreps_out)
        self.read = [ir in self.irreps_out for _, ir in self.irreps_in]
        if not any(self.read):
            raise ValueError(f"irreps_out: {self.irreps_out} has no irrep of irreps_in, {self.irreps_in}")
        species_by_channels = [
            (num_species * mul, ir) for (mul, ir), read in zip(self.irreps_in, self.read, strict=True) if read
        ]
        self.linear = Linear(species_by_channels, self.irreps_out, fused=fused)
        self.num_species = num_species

    def forward(self, x: Tensor, one_hot: Tensor) -> Tensor:
        # Only one species' channels are not zero: the fan-in is that of one species.
        one_hot = one_hot * math.sqrt(self.num_species)
        blocks = [
            (block[:, :, None, :] * one_hot[:, None, :, None]).flatten(1)
            for block, read in zip(split_irreps(x, self.irreps_in), self.read, strict=True)
            if read
        ]
        return self.linear(join(blocks))

    def extra_repr(self) -> str:
        return f"num_species={self.num_species}"


class Gate(nn.Module):
    r"""The gated nonlinearity: scalars pass through an activation, other irreps are multiplied by activated scalars.

    .. math::
        y_{0e} = \sigma(x_{0e}), \quad y_{0o} = \tanh(x_{0o}), \quad
        y_{u m}^{(l)} = \sigma(g_u^{(l)}) \, x_{u m}^{(l)}, \qquad \sigma = \mathrm{silu}

    with activations scaled to a second moment of 1, as :class:`e3nn.nn.Gate` does. Layout ir_mul. Gates are even
    scalars that ride behind the even scalars of the input, so ``irreps_in`` has one 0e slot.

    Args:
        irreps_out: Irreps of the result, each once.

    Shapes:
        - **input:** (n, irreps_in.dim)
        - **output:** (n, irreps_out.dim)
    """

    def __init__(self, irreps_out):
        super().__init__()
        self.irreps_out = _distinct(irreps_out)
        self.num_even = self.irreps_out.count("0e")
        self.gated = [mul for mul, ir in self.irreps_out if ir.l > 0]
        others = [(mul, ir) for mul, ir in self.irreps_out if ir != o3.Irrep("0e")]
        self.irreps_in = o3.Irreps([(self.num_even + sum(self.gated), "0e"), *others])

    def forward(self, x: Tensor) -> Tensor:
        even, *others = split_irreps(x, self.irreps_in)
        activated = SILU_GAIN * silu(even)
        scalars, *gates = activated.split([self.num_even, *self.gated], dim=-1)
        gates, others = iter(gates), iter(others)
        out = []
        for _, ir in self.irreps_out:
            if ir.l > 0:
                out.append(next(gates) * next(others))
            else:
                out.append(scalars if ir.p == 1 else TANH_GAIN * torch.tanh(next(others)))
        return join([block.flatten(1) for block in out])

    def extra_repr(self) -> str:
        return f"{self.irreps_in} -> {self.irreps_out}"


def _distinct(irreps) -> o3.Irreps:
    irreps = o3.Irreps(irreps)
    if len({ir for _, ir in irreps}) < len(irreps):
        raise ValueError(f"irreps: expected each irrep once, got {irreps}; Irreps.sort and simplify merge the slots")
    return irreps
