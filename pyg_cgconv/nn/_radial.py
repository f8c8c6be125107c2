"""Functions of the distance: Bessel basis, smooth cutoff, and the network that makes an edge's weights of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from .._checks import positive_number, whole_numbers
from .._functions import scale_each
from .._torch import NotScripted
from ..ops import silu
from ._species import checked, rows_of

SILU_GAIN = 1.676532470331092  # makes E[(gain * silu(z))^2] = 1 for a standard normal z


class BesselBasis(NotScripted, nn.Module):
    r"""Radial Bessel functions of Gasteiger et al., `Directional Message Passing for Molecular Graphs
    <https://arxiv.org/abs/2003.03123>`_ (equation 7).

    .. math::
        b_n(r) = \sqrt{\frac{2}{r_c}} \, \frac{\sin(n \pi r / r_c)}{r}, \qquad n = 1, \dots, N

    orthonormal on the ball of radius :math:`r_c` and zero at its surface. Value and derivatives are finite at r = 0
    too.

    Args:
        cutoff: Radius :math:`r_c`, Angstrom.
        num_basis: Number of functions N.

    Shapes:
        - **input:** distances (E,), Angstrom, float32 or float64
        - **output:** (E, num_basis), same dtype
    """

    order: Tensor

    def __init__(self, cutoff: float, num_basis: int = 8):
        super().__init__()
        if not 0 < cutoff < float("inf"):
            raise ValueError(f"cutoff: expected a positive number of Angstrom, got {cutoff}")
        if num_basis < 1:
            raise ValueError(f"num_basis: expected at least 1, got {num_basis}")
        self.cutoff, self.num_basis = float(cutoff), int(num_basis)
        # whole numbers: exact in every dtype that the module may be cast to
        self.register_buffer("order", torch.arange(1.0, self.num_basis + 1), persistent=False)

    def forward(self, distance: Tensor) -> Tensor:
        distance = distance.clamp(min=1e-6 * self.cutoff)[:, None]  # sin(k r) / r equals k to rounding at this distance
        phase = distance * (self.order.to(distance.dtype) * (math.pi / self.cutoff))
        return math.sqrt(2 / self.cutoff) * torch.sin(phase) / distance

    def slope(self, distance: Tensor) -> Tensor:
        r""":math:`db_n/dr` (E, num_basis) at distances (E,); zero where r is."""
        apart = distance[:, None] > 1e-6 * self.cutoff
        distance = distance.clamp(min=1e-6 * self.cutoff)[:, None]
        wave = self.order.to(distance.dtype) * (math.pi / self.cutoff)
        phase = distance * wave
        slope = math.sqrt(2 / self.cutoff) * (wave * torch.cos(phase) - torch.sin(phase) / distance) / distance
        return slope * apart

    def extra_repr(self) -> str:
        return f"cutoff={self.cutoff}, num_basis={self.num_basis}"


class PolynomialCutoff(NotScripted, nn.Module):
    r"""The polynomial envelope of Gasteiger et al., `Directional Message Passing for Molecular Graphs
    <https://arxiv.org/abs/2003.03123>`_ (equation 8): 1 at r = 0; value, slope and curvature vanish at the cutoff.

    .. math::
        u(d) = 1 - \tfrac{(p+1)(p+2)}{2} d^p + p (p+2) d^{p+1} - \tfrac{p(p+1)}{2} d^{p+2}
             = (1-d)^3 \sum_{k=0}^{p-1} \tfrac{(k+1)(k+2)}{2} d^k, \qquad d = \min(r / r_c, 1)

    It is computed by the second form, whose terms are positive: nothing cancels near the cutoff in float32.

    Args:
        cutoff: Radius :math:`r_c`, Angstrom.
        power: The exponent p, at least 3 (the curvature at r = 0 is finite from there on).

    Shapes:
        - **input:** distances (E,), Angstrom, float32 or float64
        - **output:** (E,), same dtype, between 0 and 1
    """

    def __init__(self, cutoff: float, power: int = 6):
        super().__init__()
        if not 0 < cutoff < float("inf"):
            raise ValueError(f"cutoff: expected a positive number of Angstrom, got {cutoff}")
        if power < 3 or power != int(power):
            raise ValueError(f"power: expected a whole number of at least 3, got {power}")
        self.cutoff, self.power = float(cutoff), int(power)

    def forward(self, distance: Tensor) -> Tensor:
        d = distance / self.cutoff
        series = torch.full_like(d, self.power * (self.power + 1) / 2)
        for k in reversed(range(self.power - 1)):
            series = series * d + (k + 1) * (k + 2) / 2
        return functional.relu(1 - d) ** 3 * series

    def slope(self, distance: Tensor) -> Tensor:
        r""":math:`du/dr = -\tfrac{p (p+1) (p+2)}{2 r_c} \, d^{p-1} (1-d)^2` (E,) at distances (E,)."""
        d = distance / self.cutoff
        factor = -self.power * (self.power + 1) * (self.power + 2) / (2 * self.cutoff)
        return factor * d ** (self.power - 1) * functional.relu(1 - d) ** 2

    def extra_repr(self) -> str:
        return f"cutoff={self.cutoff}, power={self.power}"


class RadialNetwork(NotScripted, nn.Module):
    r"""A multilayer perceptron from a radial basis to the weights of an edge's paths.

    .. math::
        \mathbf{w} = \mathbf{W}_K \, \sigma(\mathbf{W}_{K-1} \cdots \sigma(\mathbf{a}_s \odot \mathbf{W}_1 \mathbf{b})),
        \qquad \sigma(z) = c \, \mathrm{silu}(z)

    with factors a for the species s of the neighbour, or without.

    Weights are standard normal and divided by the root of their fan-in in use, and c makes the second moment of an
    activation 1, as in e3nn: outputs have unit variance for inputs of unit variance (1.1 with factors, which are
    standard normal, too). There is no bias, so the output vanishes, as smoothly as its input, where the input does:
    multiply the basis by an envelope.

    The output is the largest tensor of a model (E x num_weights).

    Args:
        num_basis: Inputs an edge.
        hidden: Widths of the hidden layers; may be empty.
        num_weights: Outputs an edge, ``conv.weight_numel``.
        num_species: Number of species S; None for a function of the distance alone.

    Raises:
        ValueError: a width is not positive, a shape is wrong, or species are given to a network without or not to one
            with them.
        TypeError: ``hidden`` is no sequence of whole numbers, ``num_species`` no whole number, or one-hot rows have
            another dtype than the basis.

    Shapes:
        - **input:** (E, num_basis); with species also these, as numbers (E,) below S or as one-hot rows (E, S)
        - **output:** (E, num_weights)
    """

    def __init__(self, num_basis: int, hidden: Sequence[int], num_weights: int, num_species: int | None = None):
        super().__init__()
        self.widths = [int(num_basis), *whole_numbers("hidden", hidden), int(num_weights)]
        if min(self.widths) < 1:
            raise ValueError(f"hidden: expected positive widths, got layers {self.widths}")
        if num_species is not None:
            num_species = positive_number("num_species", num_species)
        self.weights = nn.ParameterList(torch.randn(shape) for shape in pairwise(self.widths))
        self.factors = None if num_species is None else nn.Parameter(torch.randn(num_species, self.widths[1]))
        gains = [1.0, *[SILU_GAIN] * (len(self.weights) - 1)]
        self.scales = [gain / math.sqrt(len(weight)) for gain, weight in zip(gains, self.weights, strict=True)]

    def forward(self, basis: Tensor, species: Tensor | None = None) -> Tensor:
        if (species is None) != (self.factors is None):
            expected = "None, as the network has no species" if self.factors is None else "those of the edges' sources"
            raise ValueError(f"species: expected {expected}, got {None if species is None else tuple(species.shape)}")
        if basis.shape[-1:] != (self.widths[0],):
            raise ValueError(f"basis: expected radial functions (E, {self.widths[0]}), got {tuple(basis.shape)}")
        # Gains multiply the weights, which are few, and not the activations, which are as many as edges.
        first, *later = scale_each(self.weights, self.scales)
        out = basis @ first
        if self.factors is not None and species is not None:
            out = out * rows_of(self.factors, checked("species", species, basis, len(self.factors)))
        for weight in later:
            out = silu(out) @ weight
        return out

    def extra_repr(self) -> str:
        return f"widths={self.widths}"
