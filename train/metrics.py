"""Errors of predicted energies, forces and stresses, in meV, meV/Angstrom and meV/Angstrom^3."""

from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from ase.units import GPa

from train.statistics import composition, fit_energy_reference

MEV_PER_EV = 1000.0
GPA_PER_MEV = 1 / (MEV_PER_EV * GPa)  # of a stress in meV/Angstrom^3
# As they stand in the names of metrics.
UNITS = {"energy": "meV", "forces": "meV_per_A", "stress": "meV_per_A3"}
SHOWN_UNITS = {"energy": "meV", "forces": "meV/Å", "stress": "meV/Å³"}


@dataclass(frozen=True)
class Labels:
    """Energies, forces and stresses of a list of frames, computed or predicted, all float64; NaN where there is none.

    Args:
        energy: (frames,) total energies, eV.
        forces: (atoms, 3) forces on the atoms of all frames, frame after frame, eV/Angstrom; None if there are none.
        num_atoms: (frames,) atoms of each frame.
        stress: (frames, 3, 3) eV/Angstrom^3, positive where the structure wants to shrink; None if there are none.
        numbers: (atoms,) atomic numbers, for the errors of each element.
        config_types: (frames,) names, for the errors of each; None if there is only one.
    """

    energy: np.ndarray
    forces: np.ndarray | None
    num_atoms: np.ndarray
    stress: np.ndarray | None = None
    numbers: np.ndarray | None = None
    config_types: np.ndarray | None = None

    def has(self, name: str) -> bool:
        """Whether any frame has the label ``name``."""
        values = getattr(self, name)
        return values is not None and not bool(np.isnan(values).all())

    def selected(self, frames: np.ndarray) -> "Labels":
        """Those of some ``frames``, a mask (frames,), without their config_types."""
        atoms = np.repeat(frames, self.num_atoms)
        return Labels(
            energy=self.energy[frames],
            forces=None if self.forces is None else self.forces[atoms],
            num_atoms=self.num_atoms[frames],
            stress=None if self.stress is None else self.stress[frames],
            numbers=None if self.numbers is None else self.numbers[atoms],
        )


def errors(predicted: Labels, reference: Labels) -> dict:
    """Mean absolute and root-mean-square errors over frames for energies and over components for forces and stresses.

    Only quantities that both have are compared, and of these only labels that are not NaN; a prediction that is not a
    number although there is a label makes its errors infinite. Of several elements, ``species`` has the force errors of
    the atoms of each; of several config_types, ``config_types`` the errors of the frames of each.
    """
    found: dict = {}
    if reference.has("energy"):
        energy = difference(predicted.energy, reference.energy) * MEV_PER_EV
        found = mean_errors("energy", energy)
        found["energy_mae_meV_per_atom"] = float(np.nanmean(np.abs(energy / reference.num_atoms)))
    if predicted.forces is not None and reference.forces is not None and reference.has("forces"):
        forces = difference(predicted.forces, reference.forces) * MEV_PER_EV
        found |= mean_errors("forces", forces)
        if reference.numbers is not None:
            found["species"] = species_errors(forces, reference.numbers)
    if predicted.stress is not None and reference.stress is not None and reference.has("stress"):
        stress = difference(predicted.stress, reference.stress) * MEV_PER_EV
        found |= mean_errors("stress", stress)
        found["stress_mae_GPa"] = found[f"stress_mae_{UNITS['stress']}"] * GPA_PER_MEV
    if reference.config_types is not None:
        found["config_types"] = config_type_errors(predicted, reference, reference.config_types)
    return found


def config_type_errors(predicted: Labels, reference: Labels, config_types: np.ndarray) -> dict[str, dict]:
    """Errors, and the number of ``frames``, of each of ``config_types`` (frames,), by its name."""
    return {
        str(name): {"frames": int(frames.sum()), **errors(predicted.selected(frames), reference.selected(frames))}
        for name in np.unique(config_types)
        for frames in [config_types == name]
    }


def difference(predicted: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """NaN where there is no label, infinite where the prediction is not a number."""
    return np.nan_to_num(predicted, nan=np.inf, posinf=np.inf, neginf=-np.inf) - reference


def mean_errors(name: str, error: np.ndarray) -> dict[str, float]:
    """Mean absolute and root-mean-square of ``error``, any shape, over all that is not NaN."""
    return {
        f"{name}_mae_{UNITS[name]}": float(np.nanmean(np.abs(error))),
        f"{name}_rmse_{UNITS[name]}": float(np.sqrt(np.nanmean(np.square(error)))),
    }


def species_errors(forces: np.ndarray, numbers: np.ndarray) -> dict[str, dict[str, float]]:
    """Errors (atoms, 3) of the forces on the atoms of each element, by its symbol, lightest first."""
    present = ~np.isnan(forces).all(axis=1)
    return {
        chemical_symbols[number]: mean_errors("forces", forces[present & (numbers == number)])
        for number in np.unique(numbers[present]).tolist()
    }


def trivial_prediction(train: Labels, test: Labels) -> Labels:
    """What a model without physics says of ``test``: no force, no stress, energies from one for each element.

    These are fitted to the training energies; if all frames are one molecule, it gets their mean. The mean absolute
    error of its forces is the mean absolute force component: what a force error is compared with.
    """
    if train.numbers is None or test.numbers is None:
        raise ValueError("train and test: expected labels with atomic numbers, got numbers=None")
    species = np.unique(train.numbers)
    learnt = composition(train.numbers, train.num_atoms, species)
    asked = composition(test.numbers, test.num_atoms, species)
    known = ~np.isnan(train.energy)
    return Labels(
        energy=asked @ fit_energy_reference(learnt[known], train.energy[known]),
        forces=None if test.forces is None else np.zeros_like(test.forces),
        num_atoms=test.num_atoms,
        stress=None if test.stress is None else np.zeros_like(test.stress),
        numbers=test.numbers,
    )
