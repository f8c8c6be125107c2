"""Errors of each frame: which are the worst."""

from dataclasses import dataclass

import numpy as np

from train.metrics import MEV_PER_EV, Labels, difference


@dataclass(frozen=True)
class FrameErrors:
    """What predictions of frames are off by, float64; NaN where there is no label, infinite where no number came.

    Args:
        energy: (frames,) predicted less computed, meV/atom.
        forces: (frames,) mean absolute error of the force components, meV/Angstrom.
        largest_force: (frames,) length of the error of the force on the worst atom, meV/Angstrom.
        stress: (frames,) mean absolute error of the stress components, meV/Angstrom^3.
    """

    energy: np.ndarray
    forces: np.ndarray
    largest_force: np.ndarray
    stress: np.ndarray


def frame_errors(predicted: Labels, reference: Labels) -> FrameErrors:
    """The errors of each frame of two lists of the same frames."""
    nothing = np.full(len(reference.num_atoms), np.nan)
    energy, forces, largest, stress = nothing, nothing, nothing, nothing
    if predicted.energy is not None and reference.energy is not None:
        energy = MEV_PER_EV * difference(predicted.energy, reference.energy) / reference.num_atoms
    if predicted.forces is not None and reference.forces is not None:
        error = MEV_PER_EV * difference(predicted.forces, reference.forces)
        first_atoms = np.cumsum(reference.num_atoms) - reference.num_atoms
        known = np.add.reduceat((~np.isnan(error)).sum(axis=1), first_atoms)
        total = np.add.reduceat(np.nansum(np.abs(error), axis=1), first_atoms)
        forces = np.divide(total, known, out=nothing.copy(), where=known > 0)
        largest = np.fmax.reduceat(np.linalg.norm(error, axis=1), first_atoms)
    if predicted.stress is not None and reference.stress is not None:
        stress = MEV_PER_EV * np.abs(difference(predicted.stress, reference.stress)).mean(axis=(1, 2))
    return FrameErrors(energy, forces, largest, stress)


def largest_of(errors: np.ndarray, count: int) -> list[int]:
    """Places (at most ``count``) of the largest magnitudes among ``errors`` (n,), largest first; NaN are none."""
    known = np.flatnonzero(~np.isnan(errors))
    return known[np.argsort(-np.abs(errors[known]), kind="stable")][:count].tolist()
