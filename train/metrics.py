"""Errors of what is predicted, in thousandths of eV, e and Angstrom."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from ase.units import GPa

from datasets.label_names import OF_ATOMS
from train.frame_table import BLOCK
from train.loss import QUANTITIES
from train.statistics import composition, fit_energy_reference, reduced

MEV_PER_EV = 1000.0
GPA_PER_MEV = 1 / (MEV_PER_EV * GPa)  # of a stress in meV/Angstrom^3
# As they stand in the names of metrics.
UNITS = {
    "energy": "meV", "forces": "meV_per_A", "stress": "meV_per_A3", "energies": "meV", "charges": "me",
    "dipole": "me_A",
}  # fmt: skip
SHOWN_UNITS = {
    "energy": "meV", "forces": "meV/Å", "stress": "meV/Å³", "energies": "meV", "charges": "me", "dipole": "me Å",
}  # fmt: skip


@dataclass(frozen=True)
class Labels:
    """Labels of a list of frames, computed or predicted, all float64; NaN where there is none, None if there are none.

    Args:
        energy: (frames,) total energies, eV.
        forces: (atoms, 3) forces on the atoms of all frames, frame after frame, eV/Angstrom.
        num_atoms: (frames,) atoms of each frame.
        stress: (frames, 3, 3) eV/Angstrom^3, positive where the structure wants to shrink.
        numbers: (atoms,) atomic numbers, for the errors of each element.
        config_types: (frames,) names, for the errors of each; None if there is only one.
        heads: likewise, names of levels of theory.
        energies: (atoms,) energies of atoms, eV.
        charges: (atoms,) charges of atoms, e.
        dipole: (frames, 3) e Angstrom.
    """

    energy: np.ndarray | None
    forces: np.ndarray | None
    num_atoms: np.ndarray
    stress: np.ndarray | None = None
    numbers: np.ndarray | None = None
    config_types: np.ndarray | None = None
    heads: np.ndarray | None = None
    energies: np.ndarray | None = None
    charges: np.ndarray | None = None
    dipole: np.ndarray | None = None

    def has(self, name: str) -> bool:
        """Whether any frame has the label ``name``."""
        values = getattr(self, name)
        return values is not None and not bool(np.isnan(values).all())

    def selected(self, frames: np.ndarray) -> "Labels":
        """Those of some ``frames``, a mask (frames,), without their config_types and heads."""
        atoms = np.repeat(frames, self.num_atoms)
        values = {name: getattr(self, name) for name in ("numbers", *QUANTITIES)}
        chosen = {
            name: None if value is None else value[atoms if name in ("numbers", *OF_ATOMS) else frames]
            for name, value in values.items()
        }
        return Labels(num_atoms=self.num_atoms[frames], **chosen)


def compared(predicted: Labels, reference: Labels) -> list[str]:
    """The quantities that both have."""
    return [name for name in QUANTITIES if getattr(predicted, name) is not None and reference.has(name)]


def errors(predicted: Labels, reference: Labels) -> dict:
    """Mean absolute and root-mean-square errors over frames for energies and over components for all else.

    Only quantities that both have are compared, and of these only labels that are not NaN; a prediction that is not a
    number although there is a label makes its errors infinite. Of several elements, ``species`` has the force errors of
    the atoms of each; of several config_types, ``config_types`` the errors of the frames of each, and so ``heads``.
    """
    found: dict = {}
    for name in compared(predicted, reference):
        error = difference(getattr(predicted, name), getattr(reference, name)) * MEV_PER_EV
        found |= mean_errors(name, error)
        if name == "energy":
            found["energy_mae_meV_per_atom"] = float(np.nanmean(np.abs(error / reference.num_atoms)))
        if name == "forces" and reference.numbers is not None:
            found["species"] = species_errors(error, reference.numbers)
        if name == "stress":
            found["stress_mae_GPa"] = found[f"stress_mae_{UNITS['stress']}"] * GPA_PER_MEV
    if reference.config_types is not None:
        found["config_types"] = errors_by_name(predicted, reference, reference.config_types)
    if reference.heads is not None:
        found["heads"] = errors_by_name(predicted, reference, reference.heads)
    return found


def errors_by_name(predicted: Labels, reference: Labels, names: np.ndarray) -> dict[str, dict]:
    """Errors, and the number of ``frames``, of those that have each of ``names`` (frames,)."""
    return {
        str(name): {"frames": int(frames.sum()), **errors(predicted.selected(frames), reference.selected(frames))}
        for name in dict.fromkeys(sorted(names.tolist()))
        for frames in [names == name]
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
    """What a model without physics says of ``test``: zero, but for energies, of which each element has one.

    These are fitted to the training energies, of each head by themselves; if all frames are one molecule, it gets their
    mean. The mean absolute error of its forces is the mean absolute force component: what a force error is compared
    with.
    """
    if train.numbers is None or test.numbers is None:
        raise ValueError("train and test: expected labels with atomic numbers, got numbers=None")
    known = {name: getattr(test, name) for name in QUANTITIES}
    zeros = {name: None if value is None else np.zeros_like(value) for name, value in known.items()}
    names = np.array([""] * len(test.num_atoms)) if test.heads is None or train.heads is None else test.heads
    for head in np.unique(names):
        learnt = train if train.heads is None or not head else train.selected(train.heads == head)
        of_head, energies = names == head, _energies_of_elements(learnt)
        atoms = np.repeat(of_head, test.num_atoms)
        of_atoms = np.array([energies.get(number, 0.0) for number in test.numbers[atoms].tolist()])
        if zeros["energies"] is not None:
            zeros["energies"][atoms] = of_atoms
        if zeros["energy"] is not None:
            first = np.cumsum(test.num_atoms[of_head]) - test.num_atoms[of_head]
            zeros["energy"][of_head] = np.add.reduceat(of_atoms, first)
    return Labels(**zeros, num_atoms=test.num_atoms, numbers=test.numbers)


def _energies_of_elements(train: Labels) -> dict[int, float]:
    """By atomic number, fitted to total energies; none if there are none."""
    if train.energy is None or train.numbers is None:
        return {}
    energy, numbers = train.energy, train.numbers
    known, species = ~np.isnan(energy), np.unique(numbers)
    first = np.cumsum(train.num_atoms) - train.num_atoms

    def rows() -> Iterator[np.ndarray]:
        for begin in range(0, len(known), BLOCK):
            frames = slice(begin, begin + BLOCK)
            sizes = train.num_atoms[frames]
            counts = composition(numbers[first[begin] : first[begin] + sizes.sum()], sizes, species)
            yield np.column_stack([counts, energy[frames]])[known[frames]]

    fitted = reduced(rows())
    return dict(zip(species.tolist(), fit_energy_reference(fitted[:, :-1], fitted[:, -1]).tolist(), strict=True))
