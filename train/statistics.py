"""What a model is told of its training frames before it learns: energy reference, force scale, number of neighbours."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch_geometric.data import Data


@dataclass(frozen=True)
class Statistics:
    """Taken from the training frames only, in float64.

    Args:
        species: atomic numbers present, ascending.
        shift: energy of one atom of each species, eV, in the order of ``species``.
        scale: root-mean-square force component, eV/Angstrom.
        num_neighbors: edges per atom.
    """

    species: tuple[int, ...]
    shift: tuple[float, ...]
    scale: float
    num_neighbors: float


def fit_energy_reference(composition: np.ndarray, energy: np.ndarray) -> np.ndarray:
    r"""Per-species energies :math:`\mu_s` that minimise :math:`\sum_f (E_f - \sum_s n_{fs} \mu_s)^2`.

    Frames of a single molecule leave the split between species open: the solution of least norm is taken, and only the
    sum over the molecule means anything.

    Args:
        composition: (frames, species) number of atoms.
        energy: (frames,) eV, float64.

    Returns:
        (species,) eV.
    """
    reference, *_ = np.linalg.lstsq(composition.astype(np.float64), energy, rcond=None)
    return reference


def collect_statistics(frames: Sequence[Data]) -> Statistics:
    """Statistics of training ``frames``, whose neighbour lists are there already."""
    numbers = [frame.z.numpy() for frame in frames]
    species = np.unique(np.concatenate(numbers))
    composition = np.stack([(z[:, None] == species).sum(axis=0) for z in numbers])
    energy = torch.cat([frame.energy for frame in frames]).double().numpy()
    forces = torch.cat([frame.forces for frame in frames]).double().numpy()
    scale = float(np.sqrt(np.square(forces).mean()))
    if scale == 0.0:
        raise ValueError("the training frames have no forces other than zero: expected forces in eV/Angstrom")
    return Statistics(
        species=tuple(species.tolist()),
        shift=tuple(fit_energy_reference(composition, energy).tolist()),
        scale=scale,
        num_neighbors=sum(frame.num_edges for frame in frames) / composition.sum().item(),
    )
