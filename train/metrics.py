"""Errors of predicted energies and forces, in meV and meV/Angstrom."""

from dataclasses import dataclass

import numpy as np

MEV_PER_EV = 1000.0


@dataclass(frozen=True)
class Labels:
    """Energies and forces of a list of frames, computed or predicted, all float64.

    Args:
        energy: (frames,) total energies, eV.
        forces: (atoms, 3) forces on the atoms of all frames, frame after frame, eV/Angstrom.
        num_atoms: (frames,) atoms of each frame.
    """

    energy: np.ndarray
    forces: np.ndarray
    num_atoms: np.ndarray


def errors(predicted: Labels, reference: Labels) -> dict[str, float]:
    """Mean absolute and root-mean-square errors, over frames for energies and over components for forces."""
    energy = (predicted.energy - reference.energy) * MEV_PER_EV
    forces = (predicted.forces - reference.forces) * MEV_PER_EV
    return {
        "energy_mae_meV": float(np.abs(energy).mean()),
        "energy_rmse_meV": float(np.sqrt(np.square(energy).mean())),
        "energy_mae_meV_per_atom": float(np.abs(energy / reference.num_atoms).mean()),
        "forces_mae_meV_per_A": float(np.abs(forces).mean()),
        "forces_rmse_meV_per_A": float(np.sqrt(np.square(forces).mean())),
    }


def trivial_prediction(train_energy: np.ndarray, test: Labels) -> Labels:
    """What a model without physics says of ``test``: the mean training energy for every frame, no force on any atom.

    The mean absolute error of its forces is the mean absolute force component: what a force error is compared with.
    """
    return Labels(
        energy=np.full_like(test.energy, train_energy.mean()),
        forces=np.zeros_like(test.forces),
        num_atoms=test.num_atoms,
    )
