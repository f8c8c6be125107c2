"""The repulsion of nuclei at short distances, which no training set has frames of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

from ..nn import PolynomialCutoff
from ._atoms import Atoms, edge_lengths

COULOMB = 14.399645
"""e^2 / (4 pi epsilon_0) in eV Angstrom."""

SCREENING_LENGTH, SCREENING_EXPONENT = 0.46850, 0.23
"""0.8854 Bohr radii in Angstrom, and the power of the charges."""

SCREENING = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))
"""Factors and exponents of the universal screening function, as LAMMPS has them."""

COVALENT_RADII = (
    0.31, 0.28, 1.28, 0.96, 0.84, 0.76, 0.71, 0.66, 0.57, 0.58, 1.66, 1.41, 1.21, 1.11, 1.07, 1.05, 1.02, 1.06, 2.03,
    1.76, 1.70, 1.60, 1.53, 1.39, 1.39, 1.32, 1.26, 1.24, 1.32, 1.22, 1.22, 1.20, 1.19, 1.20, 1.20, 1.16, 2.20, 1.95,
    1.90, 1.75, 1.64, 1.54, 1.47, 1.46, 1.42, 1.39, 1.45, 1.44, 1.42, 1.39, 1.39, 1.38, 1.39, 1.40, 2.44, 2.15, 2.07,
    2.04, 2.03, 2.01, 1.99, 1.98, 1.98, 1.96, 1.94, 1.92, 1.92, 1.89, 1.90, 1.87, 1.87, 1.75, 1.70, 1.62, 1.51, 1.44,
    1.41, 1.36, 1.36, 1.32, 1.45, 1.46, 1.48, 1.40, 1.50, 1.50, 2.60, 2.21, 2.15, 2.06, 2.00, 1.96, 1.90, 1.87, 1.80,
    1.69,
)  # fmt: skip
"""Of hydrogen to curium, Angstrom: Cordero et al., `Covalent radii revisited <https://doi.org/10.1039/b801115j>`_."""

ENVELOPE_POWER = 6


class ZBL(nn.Module):
    r"""The screened Coulomb repulsion of Ziegler, Biersack and Littmark, *The Stopping and Range of Ions in Matter*
    (1985), with a smooth end at the sum of covalent radii.

    .. math::
        V_{ij}(r) = \frac{e^2}{4 \pi \epsilon_0} \frac{z_i z_j}{r} \, \phi(r / a_{ij}) \, u(r / r_{ij}), \qquad
        a_{ij} = \frac{0.4685}{z_i^{0.23} + z_j^{0.23}}, \qquad r_{ij} = \min(R_i + R_j, r_c)

    :math:`\phi` is the sum of four exponentials, u the envelope of :class:`~pyg_cgconv.nn.PolynomialCutoff`: value,
    slope and curvature vanish at :math:`r_{ij}`. So bonds, which are about as long, feel little of it. The
    repulsion of two atoms that coincide is finite, 10^7 eV or more.

    Args:
        species: Atomic numbers.
        cutoff: :math:`r_c`, Angstrom.

    Raises:
        ValueError: no covalent radius of an element is known.
    """

    charge: Tensor
    radius: Tensor

    def __init__(self, species: Sequence[int], cutoff: float):
        super().__init__()
        if unknown := [number for number in species if number > len(COVALENT_RADII)]:
            raise ValueError(
                f"zbl: expected elements up to curium (96), whose covalent radii are known, got {unknown}; leave them "
                "or zbl out"
            )
        self.cutoff, self.envelope = float(cutoff), PolynomialCutoff(1.0, ENVELOPE_POWER)
        radii = [COVALENT_RADII[number - 1] for number in species]
        self.register_buffer("charge", torch.tensor(species, dtype=torch.float64), persistent=False)
        self.register_buffer("radius", torch.tensor(radii, dtype=torch.float64), persistent=False)

    def forward(self, atoms: Atoms) -> Tensor:
        """Energies of atoms (n,), eV, in the dtype of the edge vectors: half of that of each pair is its target's."""
        distance = edge_lengths(atoms.vectors)
        source, target = atoms.species[atoms.source], atoms.species[atoms.target]
        end = (self.radius[source] + self.radius[target]).clamp(max=self.cutoff)
        powers = self.charge**SCREENING_EXPONENT
        length = SCREENING_LENGTH / (powers[source] + powers[target])
        screening = sum(factor * torch.exp(-rate * distance / length) for factor, rate in SCREENING)
        pair = COULOMB * self.charge[source] * self.charge[target] / distance * screening
        return scatter(pair * self.envelope(distance / end) / 2, atoms.target, dim_size=len(atoms.species))

    def extra_repr(self) -> str:
        return f"cutoff={self.cutoff}"
