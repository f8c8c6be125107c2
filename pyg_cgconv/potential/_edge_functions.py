"""What a potential reads from the vectors of edges: fixed functions, which know no weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..nn import BesselBasis, PolynomialCutoff, harmonic_slopes, spherical_harmonics
from ._atoms import edge_lengths


@dataclass(frozen=True)
class EdgeFunctions:
    r"""Spherical harmonics :math:`Y(\hat{\mathbf{r}})` and radial functions :math:`b_n(r) \, u(r)` of edge vectors.

    Args:
        lmax: The highest degree of the harmonics.
        basis: :math:`b_n`.
        envelope: :math:`u`.
    """

    lmax: int
    basis: BesselBasis
    envelope: PolynomialCutoff

    def __call__(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Harmonics (E, (lmax + 1)^2) and radial functions (E, num_radial) of vectors (E, 3)."""
        distance = edge_lengths(vectors)
        sh = spherical_harmonics(vectors / distance[:, None], self.lmax)
        return sh, self.basis(distance) * self.envelope(distance)[:, None]

    def slopes(self, vectors: Tensor) -> Tensor:
        """Derivatives (E, (lmax + 1)^2 + num_radial, 3) of both by the vectors (E, 3)."""
        distance = edge_lengths(vectors)
        directions = vectors / distance[:, None]
        sh = spherical_harmonics(directions, self.lmax)
        of_sh = harmonic_slopes(sh, directions, self.lmax) / distance[:, None, None]
        by_distance = self.basis.slope(distance) * self.envelope(distance)[:, None]
        by_distance = by_distance + self.basis(distance) * self.envelope.slope(distance)[:, None]
        return torch.cat([of_sh, by_distance[:, :, None] * directions[:, None]], dim=1)
