"""Energies of isolated atoms that a fine-tuning starts from: levels of theory differ in them more than in all else."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from ase.data import chemical_symbols
from torch_geometric.data import Batch, Data

from pyg_cgconv.potential import Potential
from train.columns import blocks, num_atoms, selected, values_of, with_label
from train.statistics import composition

FRAMES_AT_A_TIME = 32
# New elements take what old ones leave open: their energies are not known, those of the old ones are.
WEIGHT_OF_NEW_ELEMENTS = 1e3
# eV/atom: errors of a potential are smaller, differences between codes and functionals larger.
OTHER_LEVEL = 0.2


def initial_energies(
    potential: Potential, fitted: Collection[int], new: Collection[int], frames: Sequence[Data], known: Mapping
) -> tuple[np.ndarray, str]:
    r"""Energies (species,) of isolated atoms in eV, for frames of another level of theory than that of ``potential``.

    Those of ``fitted`` elements that are not ``known`` change by the :math:`\Delta_s` that minimise
    :math:`\sum_f (E_f - E^{pot}_f - \sum_s n_{fs} \Delta_s)^2`: what the potential knows of bonds is not fitted again.
    Old frames, which are marked as ``replayed``, take part if they are of the same level of theory as new ones.

    Args:
        potential: with all elements of ``frames``.
        fitted: atomic numbers.
        new: those of which ``potential`` knows nothing.
        frames: the training frames.
        known: energies that are taken as they are, eV, by chemical symbol.

    Returns:
        The energies, and a line of warning if old and new frames are of different levels of theory, or if energies that
        are known do not fit what the potential knows of bonds.
    """
    species = np.array(potential.hyperparameters["species"])
    before = potential.shift.cpu().numpy()
    shift = np.array([known.get(chemical_symbols[z], energy) for z, energy in zip(species, before, strict=True)])
    free = np.array([number in fitted and chemical_symbols[number] not in known for number in species])
    labelled = selected(frames, with_label(frames, "energy"))
    if not len(labelled):
        return shift, ""
    atoms = num_atoms(labelled)
    counts = np.concatenate(
        [composition(values_of(block, "z").numpy(), num_atoms(block), species) for block in blocks(labelled)]
    )
    left = energies_beyond(potential, labelled) - counts @ (shift - before)
    marked = "replayed" in labelled[0]
    old = values_of(labelled, "replayed").numpy() if marked else np.zeros(len(labelled), bool)
    weight = np.where(np.isin(species, list(new)), WEIGHT_OF_NEW_ELEMENTS, 1.0)
    if old.any() and not old.all():
        change = _fit(counts[~old], left[~old], free, weight)
        beyond = (left - counts @ change) / atoms
        difference = float(np.median(beyond[old]) - np.median(beyond[~old]))
        if abs(difference) > OTHER_LEVEL:
            return shift + change, (
                f"  warning: energies of old frames lie {difference:.2f} eV/atom from those of new ones, as of "
                "another level of theory, which one potential cannot learn: compute one set again, or give old frames "
                "config_energy_weight=0"
            )
    change = _fit(counts, left, free, weight)
    familiar = ~counts[:, np.isin(species, list(new))].any(axis=1)  # of other frames it knows too little
    replaced = counts[:, np.abs(shift - before) > OTHER_LEVEL].any(axis=1)
    return shift + change, _unlike_bonds(((left - counts @ change) / atoms)[familiar & replaced])


def _unlike_bonds(beyond: np.ndarray) -> str:
    """A line of warning if energies (frames,), eV/atom, are ``beyond`` a potential whose energies of atoms changed."""
    difference = float(np.median(beyond)) if len(beyond) else 0.0
    if abs(difference) <= OTHER_LEVEL:
        return ""
    return (
        f"  warning: with the given energies of isolated atoms, training frames lie {difference:.2f} eV/atom from "
        "what the potential says of them, which has to be learned again: its own were probably fitted, or are of other "
        "states of the atoms. Leave isolated atoms out of the files, and atom_energies, and they are fitted"
    )


def _fit(counts: np.ndarray, left: np.ndarray, free: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Changes (species,) of the energies of ``free`` elements that occur, 0 of others; least squares of least norm."""
    change = np.zeros(len(free))
    free = free & (counts.sum(axis=0) > 0)
    if free.any():
        solved, *_ = np.linalg.lstsq(counts[:, free] * weight[free], left, rcond=None)
        change[free] = solved * weight[free]
    return change


@torch.no_grad()
def energies_beyond(potential: Potential, frames: Sequence[Data]) -> np.ndarray:
    """Energies (frames,) in eV that ``frames`` have beyond what ``potential`` says of them."""
    predicted = [
        potential(Batch.from_data_list(list(frames[i : i + FRAMES_AT_A_TIME])), compute_forces=False)["energy"]
        for i in range(0, len(frames), FRAMES_AT_A_TIME)
    ]
    return (values_of(frames, "energy") - torch.cat(predicted)).double().numpy()
