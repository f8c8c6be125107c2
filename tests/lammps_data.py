"""A stand-in for the object in which LAMMPS' ML-IAP hands atoms to a model, with ghost atoms and their exchange."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

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


class Processes:
    """Processes of LAMMPS that share a periodic structure: threads here, that wait for each other in each exchange."""

    def __init__(self, atoms: Atoms, species: list[int], cutoff: float, process_of_atom: np.ndarray, count: int):
        self.waiting = Barrier(count, timeout=60)
        self.sent: list[Tensor | None] = [None] * count
        self.members = [Process(self, n, atoms, species, cutoff, process_of_atom == n) for n in range(count)]

    def run(self, compute_forces: Callable[[Process], None]) -> None:
        """Calls it for all of them at once."""
        with ThreadPoolExecutor(len(self.members)) as threads:
            for result in [threads.submit(compute_forces, member) for member in self.members]:
                result.result()


class Process:
    """As :class:`LAMMPSData`, of some of the atoms; the ghosts are those of other processes, too.

    Attributes:
        owned: Numbers of its atoms in the structure (nlocal,).
        ghosts: Number in the structure of the atom that each ghost is an image of.
        forces: What it adds to the forces of all atoms of the structure.
    """

    def __init__(self, all: Processes, rank: int, atoms: Atoms, species: list[int], cutoff: float, own: np.ndarray):
        i, j, vectors, shifts = neighbor_list("ijDS", atoms, cutoff)
        mine = own[i]
        i, j, shifts = i[mine], j[mine], shifts[mine]
        images = [(int(a), *map(int, shift)) for a, shift in zip(j, shifts, strict=True)]
        local = {(int(a), 0, 0, 0): n for n, a in enumerate(np.flatnonzero(own))}
        number = local | {image: len(local) + n for n, image in enumerate(sorted(set(images) - set(local)))}
        self.all, self.rank, self.exchanges = all, rank, 0
        every = torch.tensor([image[0] for image in number], dtype=torch.int64)
        self.nlocal, self.ntotal, self.npairs = len(local), len(number), len(i)
        self.owned, self.ghosts, self.every = every[: len(local)], every[len(local) :], every
        self.pair_i = np.array([local[int(a), 0, 0, 0] for a in i]) if len(i) else None
        self.pair_j = np.array([number[image] for image in images]) if len(i) else None
        self.rij = vectors[mine] if len(i) else None
        self.elems = np.array([species.index(atoms.numbers[a]) for a in every]) if len(every) else None
        self.eatoms = np.full(self.nlocal, np.nan) if self.nlocal else None
        self.energy = np.nan
        self.forces = torch.zeros(len(atoms), 3, dtype=torch.float64)

    def _everybody(self, rows: Tensor) -> Tensor:
        """The sum of what all processes give for the atoms of the structure."""
        self.all.sent[self.rank] = rows.detach().clone()
        self.all.waiting.wait()
        total = sum(self.all.sent)
        self.all.waiting.wait()
        self.exchanges += 1
        return total

    def forward_exchange(self, features: Tensor, out: Tensor, length: int) -> None:
        assert features.shape == out.shape == (self.ntotal, length)
        rows = features.new_zeros(len(self.forces), length)
        rows[self.owned] = features[: self.nlocal]
        out[: self.nlocal] = features[: self.nlocal]
        out[self.nlocal :] = self._everybody(rows)[self.ghosts]

    def reverse_exchange(self, gradients: Tensor, out: Tensor, length: int) -> None:
        assert gradients.shape == out.shape == (self.ntotal, length)
        rows = gradients.new_zeros(len(self.forces), length)
        rows.index_add_(0, self.ghosts, gradients[self.nlocal :])
        out[: self.nlocal] = gradients[: self.nlocal] + self._everybody(rows)[self.owned]
        out[self.nlocal :] = 0

    def update_pair_forces_gpu(self, pairs: Tensor) -> None:
        assert pairs.dtype == torch.float64
        assert pairs.is_contiguous()
        i, j = self.every[torch.as_tensor(self.pair_i)], self.every[torch.as_tensor(self.pair_j)]
        self.forces.index_add_(0, i, pairs).index_add_(0, j, -pairs)
