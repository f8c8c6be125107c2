"""A property of a molecule from what is learned of its atoms, added up as the physics of the property says."""

from functools import cache

import torch
from ase.data import atomic_masses
from torch import Tensor, nn
from torch_geometric.data import Batch
from torch_geometric.utils import scatter

DEBYE = 4.803204544  # of one elementary charge times one Angstrom

# What each atom gives, and how QM9's targets are made of it.
READOUT_IRREPS = {"sum": "0e", "mean": "0e", "extent": "2x0e", "dipole": "0e + 1o"}
READOUT_OF_TARGET = {
    "mu": "dipole", "alpha": "sum", "homo": "mean", "lumo": "mean", "gap": "mean", "r2": "extent", "zpve": "sum",
    "U0": "sum", "U": "sum", "H": "sum", "G": "sum", "Cv": "sum",
}  # fmt: skip


class PropertyReadout(nn.Module):
    r"""A scalar of a molecule from contributions of its atoms.

    .. math::
        y = \sum_i \sum_k p_{ik} \, (\mu_{z_i k} + \sigma_k \varepsilon_{ik})

    where :math:`\varepsilon` are the scalars that :meth:`pyg_cgconv.Potential.atomic_outputs` learns, and p depends on
    ``readout``:

    - ``sum``, for properties that grow with the molecule: :math:`p = 1`;
    - ``mean``, for those that do not, such as orbital energies: :math:`p = 1 / n`;
    - ``extent``, for the electronic spatial extent: :math:`p = (|\mathbf{r}_i - \bar{\mathbf{r}}|^2, 1)` with the
      centre of mass, for the electrons of an atom and their spread around it;
    - ``dipole``, for the length of a dipole moment (`PaiNN <https://arxiv.org/abs/2102.03150>`_, eq. 9):
      :math:`y = |\sum_i q_i \mathbf{r}_i + \boldsymbol{\mu}_i|`. The mean charge is taken off, so that the molecule is
      neutral and the place of the origin does not matter.

    The sums are in float64, see :class:`pyg_cgconv.Potential`.

    Args:
        readout: One of these.
        shift: :math:`\mu` (species, k) in the unit of the property over that of p.
        scale: :math:`\sigma` (k,).
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, readout: str, shift: list[list[float]], scale: list[float]):
        super().__init__()
        self.readout = readout
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float64))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float64))

    def forward(self, outputs: Tensor, species: Tensor, batch: Batch) -> Tensor:
        """The property (B,) float64 of each molecule.

        Args:
            outputs: of the atoms (n, dim of ``READOUT_IRREPS[readout]``).
            species: rows of ``shift`` (n,).
            batch: the molecules, with ``z`` and ``pos``.
        """
        outputs = outputs.double()
        if self.readout == "dipole":
            charge = self.shift[species, 0] + self.scale[0] * outputs[:, 0]
            return dipole(charge, self.scale[1] * outputs[:, 1:], batch).norm(dim=1)
        contributions = pooling_weights(self.readout, batch) * (self.shift[species] + self.scale * outputs)
        return scatter(contributions.sum(dim=1), batch.batch, dim_size=batch.num_graphs)


def pooling_weights(readout: str, batch: Batch) -> Tensor:
    """How much an atom's contributions count in the property: (n, k) float64; of a dipole, the size of the vectors."""
    one = torch.ones(len(batch.z), 1, dtype=torch.float64, device=batch.z.device)
    if readout == "sum":
        return one
    if readout == "mean":
        return one / batch.ptr.diff()[batch.batch, None]
    if readout == "dipole":
        return torch.cat([DEBYE * from_centre(one, batch).norm(dim=1, keepdim=True), one], dim=1)
    mass = _atomic_masses(batch.z.device)[batch.z, None]
    return torch.cat([from_centre(mass, batch).square().sum(dim=1, keepdim=True), one], dim=1)


@cache
def _atomic_masses(device: torch.device) -> Tensor:
    return torch.from_numpy(atomic_masses).to(device)  # once: the copy would not go into a CUDA graph


def from_centre(weight: Tensor, batch: Batch) -> Tensor:
    """Positions (n, 3) float64 relative to the mean with ``weight`` (n, 1) of the molecule's atoms."""
    pos = batch.pos.double()
    sums = scatter(
        weight * torch.cat([pos, torch.ones_like(pos[:, :1])], dim=1), batch.batch, dim_size=batch.num_graphs
    )
    return pos - (sums[:, :3] / sums[:, 3:])[batch.batch]


def dipole(charge: Tensor, moment: Tensor, batch: Batch) -> Tensor:
    """Dipole moments (B, 3) in Debye of charges (n,) in e, their mean taken off, and atomic moments (n, 3) in Debye."""
    vectors = DEBYE * charge[:, None] * from_centre(torch.ones_like(charge[:, None]), batch) + moment
    return scatter(vectors, batch.batch, dim_size=batch.num_graphs)
