"""MACE's radial functions, with their slopes, in a few operations."""

from __future__ import annotations

from math import comb, pi, prod
from typing import Any, NamedTuple

import torch
from mace.modules import blocks, radial
from torch import Tensor, nn
from torch.autograd import Function

from .._torch import in_forward_mode, is_plain, is_recorded, refuse_torchscript, without_modes
from ..cuda_graphs import is_for_graph
from ._replacement import Replacement

LEAST = 1e-8
"""Of the cutoff: at shorter distances the functions are, to rounding, what they are at this one."""


class RadialEmbeddingBlock(Replacement, blocks.RadialEmbeddingBlock):
    r"""Bessel functions with the polynomial cutoff of power p. With :math:`d = \min(r / r_c, 1)` these are

    .. math::
        f_n(r) = \frac{a}{r_c} \, g(d) \, \sin(\omega_n r), \qquad
        g(d) = \frac{1}{d} - \tfrac{(p+1)(p+2)}{2} d^{p-1} + p (p+2) d^p - \tfrac{p(p+1)}{2} d^{p+1} .

    Their slopes are computed with them, in CUDA graphs where gradients may be asked for. Elsewhere it is MACE's way.
    """

    original = blocks.RadialEmbeddingBlock
    prepared = ("_functions", "_sources")

    @classmethod
    def obstacle(cls, module: Any) -> str:
        basis, cutoff = module.bessel_fn, module.cutoff_fn
        if type(basis) is not radial.BesselBasis:
            return f"its functions are those of {type(basis).__name__}"
        if type(cutoff) is not radial.PolynomialCutoff:
            return f"its cutoff is {type(cutoff).__name__}"
        if basis.bessel_weights.requires_grad:
            return "its bessel_weights are trained; freeze them by requires_grad_(False) before accelerate(model)"
        if hasattr(module, "distance_transform"):
            return f"it transforms distances by {type(module.distance_transform).__name__}"
        return "" if getattr(module, "apply_cutoff", True) else "its functions are without the cutoff"

    def hindrance(self) -> str:
        return self.obstacle(self)

    def prepare(self) -> None:
        self._sources = _sources(self)
        with without_modes():
            self._functions = None if self.hindrance() else _functions(self)

    def forward(self, edge_lengths: Tensor, *others: Any, **named: Any) -> tuple[Tensor, Tensor | None]:
        """Functions (E, num_basis) of distances (E, 1), and None for the cutoff, which they have."""
        refuse_torchscript(self)
        if is_plain(edge_lengths) and is_recorded([edge_lengths]) and not in_forward_mode():
            if not all(map(_Source.is_still, self._sources, _sources(self))):
                self.prepare()  # before a graph is captured, which could not make these tensors
            if self._functions is not None and edge_lengths.dim() == 2 and is_for_graph(edge_lengths):
                return RadialFunctions.apply(edge_lengths, *self._functions)[0], None
        return super().forward(edge_lengths, *others, **named)


class _Functions(NamedTuple):
    r"""What the functions are computed from. By Leibniz, the derivative of order m is a sum of m + 1 rows,

    .. math::
        f_n^{(m)}(r) = \sum_{k=0}^{m} \binom{m}{k} \frac{a \, \omega_n^k}{r_c^{m-k+1}} \, g^{(m-k)}(d)
        \sin(\omega_n r + k \tfrac{\pi}{2}), \qquad g^{(m-k)}(d) = \sum_j c_j d^{e_j} .

    Three rows are computed at a time: first those of orders 0 and 1, or second those of order 2.

    Attributes:
        least, cutoff: The shortest distance that is told from others, and :math:`r_c` ()
        waves: :math:`\omega` (num_basis,)
        exponents, coefficients: e and c (2, 3, 4, 1), whole numbers: beyond the cutoff sums of them are exactly zero.
        phases: :math:`k \pi / 2` (2, 3, 1, 1)
        scales: The factors of rows (2, 3, 1, num_basis).
    """

    least: Tensor
    cutoff: Tensor
    waves: Tensor
    exponents: Tensor
    coefficients: Tensor
    phases: Tensor
    scales: Tensor


ROWS = (0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)
"""m and k of the rows."""


def _functions(module: Any) -> _Functions:
    cutoff, waves, scale = module.cutoff_fn.r_max, module.bessel_fn.bessel_weights, module.bessel_fn.prefactor
    p = int(module.cutoff_fn.p)
    terms = (-1, 1), (p - 1, -(p + 1) * (p + 2) // 2), (p, p * (p + 2)), (p + 1, -p * (p + 1) // 2)
    exponents, coefficients, phases, scales = [], [], [], []
    for m, k in ROWS:
        order = m - k
        exponents.append([e - order for e, _ in terms])
        coefficients.append([c * prod(range(e - order + 1, e + 1)) for e, c in terms])
        phases.append(k * pi / 2)
        scales.append(comb(m, k) * scale * waves**k / cutoff ** (order + 1))
    return _Functions(
        LEAST * cutoff,
        cutoff.detach(),
        waves.detach(),
        waves.new_tensor(exponents).view(2, 3, 4, 1),
        waves.new_tensor(coefficients).view(2, 3, 4, 1),
        waves.new_tensor(phases).view(2, 3, 1, 1),
        torch.stack(scales).view(2, 3, 1, len(waves)),
    )


def _rows(distance: Tensor, part: int, functions: _Functions) -> Tensor:
    """Three rows (3, E, num_basis) at distances (E, 1)."""
    distance = distance.clamp(functions.least, functions.cutoff)
    powers = (distance / functions.cutoff).squeeze(-1) ** functions.exponents[part]
    radial = (powers * functions.coefficients[part]).sum(1).unsqueeze(-1)
    return radial * (torch.addcmul(functions.phases[part], distance, functions.waves).sin() * functions.scales[part])


class RadialFunctions(Function):
    """Functions and their slopes (E, num_basis), of distances (E, 1) and what :class:`_Functions` has."""

    generate_vmap_rule = True

    @staticmethod
    def forward(distance, *functions):
        values, *slopes = _rows(distance, 0, _Functions(*functions))
        return values, slopes[0] + slopes[1]

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    def backward(ctx, by_values, by_slopes):
        distance, *functions, slopes = ctx.saved_tensors
        result = None
        if by_values is not None:
            result = (by_values * slopes).sum(-1, keepdim=True)
        if by_slopes is not None:  # second derivatives; operations of PyTorch, which differentiates them further
            curvature = _rows(distance, 1, _Functions(*functions)).sum(0)
            by_slope = (by_slopes * curvature).sum(-1, keepdim=True)
            result = by_slope if result is None else result + by_slope
        return result, *[None] * len(functions)


class _Source(NamedTuple):
    """A tensor that the functions are made of, as it is now: others may exchange, change or train it."""

    tensor: Tensor
    version: int
    is_trained: bool

    def is_still(self, other: _Source) -> bool:
        return self.tensor is other.tensor and self[1:] == other[1:]


def _sources(module: Any) -> list[_Source]:
    tensors = *_tensors(module.bessel_fn), *_tensors(module.cutoff_fn)
    return [_Source(each, 0 if each.is_inference() else each._version, each.requires_grad) for each in tensors]


def _tensors(module: nn.Module) -> list[Tensor]:
    return [each for store in (module._parameters, module._buffers) for each in store.values() if each is not None]
