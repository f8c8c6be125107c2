"""What a model is told of its training frames before it learns: energy reference, force scale, number of neighbours."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import ArrayLike
from torch_geometric.data import Data

from datasets.atoms_labels import MOMENTS


@dataclass(frozen=True)
class Statistics:
    """Taken from the training frames only, in float64.

    Args:
        species: atomic numbers present, ascending.
        shift: energy of one atom of each species, eV, in the order of ``species``.
        scale: root-mean-square force component, eV/Angstrom; of frames without forces, root-mean-square energy of an
            atom relative to ``shift``, eV; NaN of frames without both.
        num_neighbors: edges per atom.
        heads: names of levels of theory; ``shift`` and ``scale`` are then tuples with an item for each.
        units: root mean square of charges, e, and of components of dipoles, e Angstrom, as far as there are.
    """

    species: tuple[int, ...]
    shift: tuple
    scale: float | tuple
    num_neighbors: float
    heads: tuple[str, ...] | None = None
    units: dict[str, float] = field(default_factory=dict)

    def numbers(self) -> list[float]:
        """All of them: they tell these frames from others."""
        return [*self.species, *np.ravel(self.shift), *np.ravel(self.scale), self.num_neighbors]


def composition(numbers: np.ndarray, num_atoms: np.ndarray, species: ArrayLike) -> np.ndarray:
    """Atoms of each of ``species`` in each frame, (frames, species) int64.

    Args:
        numbers: (atoms,) atomic numbers of all frames, frame after frame.
        num_atoms: (frames,) atoms of each frame, one or more.
        species: atomic numbers.
    """
    first = np.cumsum(num_atoms) - num_atoms
    return np.add.reduceat((numbers[:, None] == np.asarray(species)).astype(np.int64), first)


def fit_energy_reference(composition: np.ndarray, energy: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
    r"""Per-species energies :math:`\mu_s` that minimise :math:`\sum_f (E_f - \sum_s n_{fs} \mu_s)^2`.

    Frames of a single molecule leave the split between species open: the solution of least norm is taken, and only the
    sum over the molecule means anything.

    Args:
        composition: (frames, species) number of atoms.
        energy: (frames,) eV, float64.
        known: (species,) energies that stay as they are, eV; NaN where there is none, which all are by default.

    Returns:
        (species,) eV.
    """
    reference = np.full(composition.shape[1], np.nan) if known is None else known.copy()
    fitted = np.isnan(reference)
    left = energy - composition[:, ~fitted] @ reference[~fitted]
    reference[fitted], *_ = np.linalg.lstsq(composition[:, fitted].astype(np.float64), left, rcond=None)
    return reference


def given_energy_reference(atom_energies: Mapping[str, float], species: Sequence[int]) -> np.ndarray:
    """Energies (species,) of isolated atoms in eV from a table by chemical symbol.

    Raises:
        ValueError: a key is no chemical symbol, or an element of ``species`` is missing.
    """
    unknown = [symbol for symbol in atom_energies if atomic_numbers.get(symbol, 0) < 1]
    if unknown:
        raise ValueError(f"atom_energies: {unknown} are no chemical symbols")
    symbols = [chemical_symbols[number] for number in species]
    missing = [symbol for symbol in symbols if symbol not in atom_energies]
    if missing:
        raise ValueError(
            f"atom_energies: none for {missing}, which the training frames hold; add it or leave the option out"
        )
    return np.array([float(atom_energies[symbol]) for symbol in symbols])


def collect_statistics(
    frames: Sequence[Data],
    atom_energies: Mapping[str, float] | None = None,
    isolated_energies: Mapping[str, float] | None = None,
    species: np.ndarray | None = None,
) -> Statistics:
    """Statistics of training ``frames``, whose neighbour lists are there already.

    Args:
        frames: with energies and forces, NaN where there are none, or without any forces.
        atom_energies: energies of isolated atoms in eV by chemical symbol, those of all elements but the ones that
            ``isolated_energies`` has; fitted if not given.
        isolated_energies: likewise of some elements, others are fitted; ``atom_energies`` goes before it.
        species: atomic numbers, ascending, more than those of ``frames``; energies of the others are 0 if not known.
    """
    numbers = torch.cat([frame.z for frame in frames]).numpy()
    present = np.unique(numbers)
    species = present if species is None else species
    num_neighbors, units = sum(frame.num_edges for frame in frames) / len(numbers), label_units(frames)
    if units and not any("energy" in frame for frame in frames):  # charges or dipoles alone
        return Statistics(tuple(species.tolist()), (0.0,) * len(species), 1.0, num_neighbors, units=units)
    atoms = composition(numbers, np.array([frame.num_nodes for frame in frames]), species)
    energy = torch.cat([frame.energy for frame in frames]).double().numpy()
    atoms, energy = atoms[~np.isnan(energy)], energy[~np.isnan(energy)]
    known = dict(isolated_energies or {}) | dict(atom_energies or {})
    symbols = [chemical_symbols[number] for number in species]
    if atom_energies is None:
        shift = fit_energy_reference(atoms, energy, np.array([known.get(symbol, np.nan) for symbol in symbols]))
    else:
        given_energy_reference(known, present.tolist())  # which says what is wrong
        shift = np.array([float(known.get(symbol, 0.0)) for symbol in symbols])
    return Statistics(
        species=tuple(species.tolist()),
        shift=tuple(shift.tolist()),
        scale=_scale(frames, (energy - atoms @ shift) / atoms.sum(axis=1)),
        num_neighbors=num_neighbors,
        units=units,
    )


def label_units(frames: Sequence[Data]) -> dict[str, float]:
    """Of charges and dipoles, see :class:`Statistics`.

    Raises:
        ValueError: all of them are zero.
    """
    units = {}
    for name in MOMENTS:
        values = torch.cat([frame[name].double().flatten() for frame in frames if name in frame] or [torch.empty(0)])
        values = values[~values.isnan()]
        if len(values):
            units[name] = float(values.square().mean().sqrt())
        if units.get(name) == 0.0:
            raise ValueError(f"{name}: all labels of the training frames are zero; leave them out of labels")
    return units


def elements_without_energy(
    frames: Sequence[Data], known: Collection[str], species: Collection[int] | None = None
) -> list[str]:
    """Symbols of the elements of ``frames``, or of the ``species`` given, that no frame with an energy holds, and that
    are not ``known``."""
    there = {int(number) for frame in frames for number in frame.z.unique()} if species is None else set(species)
    if not any("energy" in frame for frame in frames):
        return []
    fitted = {int(number) for frame in frames if not frame.energy.isnan().any() for number in frame.z.unique()}
    return [symbol for number in sorted(there - fitted) if (symbol := chemical_symbols[number]) not in known]


def _scale(frames: Sequence[Data], energy_of_atom: np.ndarray) -> float:
    """The unit of errors: see :class:`Statistics`."""
    forces = [frame.forces for frame in frames if "forces" in frame and not frame.forces.isnan().all()]
    if not forces and not len(energy_of_atom):
        return np.nan
    if not forces:
        scale, name = float(np.sqrt(np.square(energy_of_atom).mean())), "energies other than their reference"
    else:
        scale, name = float(torch.cat(forces).double().square().mean().sqrt()), "forces other than zero"
    if scale == 0.0:
        raise ValueError(f"the training frames have no {name}: expected energies in eV and forces in eV/Angstrom")
    return scale
