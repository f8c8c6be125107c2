"""A stand-in for the object in which LAMMPS' ML-IAP hands atoms to a model, with ghost atoms and their exchange."""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list
from torch import Tensor


class LAMMPSData:
    """Atoms of a periodic structure, then ghosts, which are images of them.

    Attributes:
        owner: The atom that each ghost is an image of.
        forces: What the model gave for the atoms, from the forces of pairs.
    """

    def __init__(self, atoms: Atoms, species: list[int], cutoff: float):
        i, j, vectors, shifts = neighbor_list("ijDS", atoms, cutoff)
        images = sorted({(int(a), *map(int, shift)) for a, shift in zip(j, shifts, strict=True) if shift.any()})
        number = {image: len(atoms) + n for n, image in enumerate(images)}
        self.owner = torch.tensor([image[0] for image in images])
        self.nlocal, self.ntotal, self.npairs = len(atoms), len(atoms) + len(images), len(i)
        self.pair_i = i
        self.pair_j = np.array([number.get((int(a), *map(int, s)), int(a)) for a, s in zip(j, shifts, strict=True)])
        self.rij = vectors
        elements = [species.index(z) for z in atoms.numbers]
        self.elems = np.array([*elements, *(elements[int(a)] for a in self.owner)])
        self.eatoms, self.energy = np.zeros(len(atoms)), 0.0
        self.forces = torch.zeros(len(atoms), 3, dtype=torch.float64)
        self.exchanges = 0

    def forward_exchange(self, features: Tensor, out: Tensor, length: int) -> None:
        """Ghosts get what their owners have."""
        assert features.shape == out.shape == (self.ntotal, length)
        out[: self.nlocal] = features[: self.nlocal]
        out[self.nlocal :] = features[self.owner]
        self.exchanges += 1

    def reverse_exchange(self, gradients: Tensor, out: Tensor, length: int) -> None:
        """Owners get what their ghosts have."""
        assert gradients.shape == out.shape == (self.ntotal, length)
        out[: self.nlocal] = gradients[: self.nlocal]
        out[self.nlocal :] = 0
        out[: self.nlocal].index_add_(0, self.owner, gradients[self.nlocal :])

    def update_pair_forces_gpu(self, pairs: Tensor) -> None:
        i, j = torch.as_tensor(self.pair_i), torch.as_tensor(self.pair_j)
        j = torch.cat([torch.arange(self.nlocal), self.owner])[j]
        self.forces = torch.zeros_like(self.forces).index_add(0, i, pairs).index_add(0, j, -pairs)
