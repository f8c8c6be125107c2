"""Charges of atoms and dipoles of structures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.utils import scatter

from ._atoms import Atoms

ATOMIC_MASSES = (
    1.008, 4.003, 6.94, 9.012, 10.81, 12.011, 14.007, 15.999, 18.998, 20.18, 22.99, 24.305, 26.982, 28.085, 30.974,
    32.06, 35.45, 39.948, 39.098, 40.078, 44.956, 47.867, 50.941, 51.996, 54.938, 55.845, 58.933, 58.693, 63.546,
    65.38, 69.723, 72.63, 74.922, 78.971, 79.904, 83.798, 85.468, 87.62, 88.906, 91.224, 92.906, 95.95, 97.907,
    101.07, 102.906, 106.42, 107.868, 112.414, 114.818, 118.71, 121.76, 127.6, 126.904, 131.293, 132.905, 137.327,
    138.905, 140.116, 140.908, 144.242, 144.913, 150.36, 151.964, 157.25, 158.925, 162.5, 164.93, 167.259, 168.934,
    173.054, 174.967, 178.49, 180.948, 183.84, 186.207, 190.23, 192.217, 195.084, 196.967, 200.592, 204.38, 207.2,
    208.98, 208.982, 209.987, 222.018, 223.02, 226.025, 227.028, 232.038, 231.036, 238.029, 237.048, 244.064, 243.061,
    247.07, 247.07, 251.08, 252.083, 257.095, 258.098, 259.101, 262.11, 267.122, 268.126, 271.134, 270.133, 269.134,
    278.156, 281.165, 281.166, 285.177, 286.182, 289.19, 289.194, 293.204, 293.208, 294.214,
)  # fmt: skip
"""Of hydrogen to oganesson, unified atomic mass units, as ASE has them: they tell the centre of a charged structure."""


class Moments(nn.Module):
    r"""Charges and dipoles from a scalar :math:`\varepsilon_i` and a vector :math:`\boldsymbol{\mu}_i` of each atom.

    .. math::
        q_i = \varepsilon_i + \frac{1}{n} \big( Q - \sum_j \varepsilon_j \big), \qquad
        \boldsymbol{\mu} = \sum_i q_i (\mathbf{r}_i - \mathbf{R}) + \boldsymbol{\mu}_i

    with the total charge Q and the centre of mass R, on which the dipole of a neutral structure does not depend
    (`PaiNN <https://arxiv.org/abs/2102.03150>`_, equation 9). Units are e and e Angstrom.

    Args:
        numbers: Atomic numbers of the species, (S,) int64.
        properties: What is given: ``charges``, ``dipole``, or both.
    """

    mass: Tensor

    def __init__(self, numbers: Tensor, properties: Sequence[str]):
        super().__init__()
        self.properties = tuple(properties)
        self.register_buffer("mass", torch.tensor(ATOMIC_MASSES, dtype=torch.float64)[numbers - 1], persistent=False)

    def forward(self, learned: Tensor, data: Data, atoms: Atoms) -> dict[str, Tensor]:
        """``charges`` (n,) and ``dipole`` (B, 3), float64; the dipole is NaN where a structure is periodic.

        Args:
            learned: (n, 1) or, for dipoles, (n, 4), float64.
            data: With ``pos``, and as far as there are ``charge`` (B,), ``cell`` and ``pbc`` (B, 3).
            atoms: What was read of it.

        Raises:
            ValueError: ``data.charge`` has a wrong shape.
        """
        batch, count = atoms.structure, atoms.num_structures
        size = scatter(torch.ones_like(learned[:, 0]), batch, dim_size=count)
        missing = _total_charge(data, count) - scatter(learned[:, 0], batch, dim_size=count)
        charges = learned[:, 0] + (missing / size.clamp(min=1))[batch]
        out = {"charges": charges, "dipole": None}
        if "dipole" in self.properties:
            mass, pos = self.mass[atoms.species].double()[:, None], data.pos.double()
            centre = scatter(mass * pos, batch, dim_size=count) / scatter(mass, batch, dim_size=count)
            vectors = charges[:, None] * (pos - centre[batch]) + learned[:, 1:]
            dipole = scatter(vectors, batch, dim_size=count)
            out["dipole"] = torch.where(_is_periodic(data, atoms)[:, None], torch.nan, dipole)
        return {name: value for name, value in out.items() if value is not None and name in self.properties}


def _total_charge(data: Data, count: int) -> Tensor:
    given = getattr(data, "charge", None)
    if given is None:
        return data.pos.new_zeros(count, dtype=torch.float64)
    if not isinstance(given, Tensor) or given.shape != (count,):
        shown = tuple(given.shape) if isinstance(given, Tensor) else repr(given)
        raise ValueError(f"data.charge: expected the total charge of each structure ({count},), in e, got {shown}")
    return given.double()


def _is_periodic(data: Data, atoms: Atoms) -> Tensor:
    """Whether each structure (B,) is periodic in any direction; with a cell, all are where ``pbc`` does not say so."""
    if atoms.cell is None:
        return atoms.structure.new_zeros(atoms.num_structures, dtype=torch.bool)
    pbc = getattr(data, "pbc", None)
    if pbc is None:
        return atoms.structure.new_ones(atoms.num_structures, dtype=torch.bool)
    return pbc.reshape(-1, 3).any(-1)
