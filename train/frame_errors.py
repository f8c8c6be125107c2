"""Errors of each frame: which are the worst."""

from dataclasses import dataclass

import numpy as np

from train.metrics import MEV_PER_EV, Labels, compared, difference


@dataclass(frozen=True)
class FrameErrors:
    """What predictions of frames are off by, float64; NaN where there is no label, infinite where no number came.

    Args:
        energy: (frames,) predicted less computed, meV/atom.
        forces: (frames,) mean absolute error of the force components, meV/Angstrom.
        largest_force: (frames,) length of the error of the force on the worst atom, meV/Angstrom.
        stress: (frames,) mean absolute error of the stress components, meV/Angstrom^3.
        charges: (frames,) that of the charges of atoms, thousandths of e.
        dipole: (frames,) length of the error of the dipole, thousandths of e Angstrom.
    """

    energy: np.ndarray
    forces: np.ndarray
    largest_force: np.ndarray
    stress: np.ndarray
    charges: np.ndarray
    dipole: np.ndarray


def frame_errors(predicted: Labels, reference: Labels) -> FrameErrors:
    """The errors of each frame of two lists of the same frames."""
    nothing = np.full(len(reference.num_atoms), np.nan)
    error = {
        name: MEV_PER_EV * difference(getattr(predicted, name), getattr(reference, name))
        for name in compared(predicted, reference)
    }
    return FrameErrors(
        energy=error["energy"] / reference.num_atoms if "energy" in error else nothing,
        forces=of_atoms(np.abs(error["forces"]), reference.num_atoms) if "forces" in error else nothing,
        largest_force=(
            np.fmax.reduceat(np.linalg.norm(error["forces"], axis=1), first_atoms(reference.num_atoms))
            if "forces" in error
            else nothing
        ),
        stress=np.abs(error["stress"]).mean(axis=(1, 2)) if "stress" in error else nothing,
        charges=of_atoms(np.abs(error["charges"]), reference.num_atoms) if "charges" in error else nothing,
        dipole=np.linalg.norm(error["dipole"], axis=1) if "dipole" in error else nothing,
    )


def first_atoms(num_atoms: np.ndarray) -> np.ndarray:
    return np.cumsum(num_atoms) - num_atoms


def of_atoms(magnitude: np.ndarray, num_atoms: np.ndarray) -> np.ndarray:
    """Means (frames,) of ``magnitude`` (atoms, ...) over the atoms of each frame and all that is not NaN."""
    rows, first = magnitude.reshape(len(magnitude), -1), first_atoms(num_atoms)
    known = np.add.reduceat((~np.isnan(rows)).sum(axis=1), first)
    total = np.add.reduceat(np.nansum(rows, axis=1), first)
    return np.divide(total, known, out=np.full(len(num_atoms), np.nan), where=known > 0)


def largest_of(errors: np.ndarray, count: int) -> list[int]:
    """Places (at most ``count``) of the largest magnitudes among ``errors`` (n,), largest first; NaN are none."""
    known = np.flatnonzero(~np.isnan(errors))
    return known[np.argsort(-np.abs(errors[known]), kind="stable")][:count].tolist()
