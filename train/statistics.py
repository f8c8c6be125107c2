"""What a model is told of its training frames before it learns: energy reference, force scale, number of neighbours."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import ArrayLike
from torch_geometric.data import Data

from datasets.atoms_labels import MOMENTS
from train.columns import blocks, elements, num_atoms, num_edges, selected, values_of, with_label

# Singular values of a composition, relative to the largest, that are rounding: others are far larger, as an element is
# in one of a million frames at least.
RANK = 1e-10


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
    reference[fitted], *_ = np.linalg.lstsq(composition[:, fitted].astype(np.float64), left, rcond=RANK)
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
    present = elements(frames)
    species = present if species is None else species
    num_neighbors, units = float(num_edges(frames).sum() / num_atoms(frames).sum()), label_units([frames])
    if units and not any("energy" in frame for frame in frames[:1]):  # charges or dipoles alone
        return Statistics(tuple(species.tolist()), (0.0,) * len(species), 1.0, num_neighbors, units=units)
    known = dict(isolated_energies or {}) | dict(atom_energies or {})
    symbols = [chemical_symbols[number] for number in species]
    if atom_energies is None:
        fixed = np.array([known.get(symbol, np.nan) for symbol in symbols])
        rows = reduced(np.column_stack(block) for block in _energies(frames, species))
        shift = fit_energy_reference(rows[:, :-1], rows[:, -1], fixed)
    else:
        given_energy_reference(known, present.tolist())  # which says what is wrong
        shift = np.array([float(known.get(symbol, 0.0)) for symbol in symbols])
    return Statistics(
        species=tuple(species.tolist()),
        shift=tuple(shift.tolist()),
        scale=_scale(frames, species, shift),
        num_neighbors=num_neighbors,
        units=units,
    )


def reduced(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """Rows (m, columns) of least squares that have the solutions of all rows of ``blocks``, however many these are: the
    triangular factor of their QR decomposition; one block stays as it is.
    """
    rows: np.ndarray | None = None
    for block in blocks:
        rows = block if rows is None else np.asarray(np.linalg.qr(np.concatenate([rows, block]), mode="r"))
    if rows is None:
        raise ValueError("blocks: expected one or more, got none")
    return rows


def _energies(frames: Sequence[Data], species: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Block after block, atoms of each of ``species`` (n, species) and energies (n,) of the frames that have one."""
    for block in blocks(frames):
        atoms = composition(values_of(block, "z").numpy(), num_atoms(block), species)
        energy = values_of(block, "energy").double().numpy()
        yield atoms[~np.isnan(energy)], energy[~np.isnan(energy)]


def label_units(parts: Iterable[Sequence[Data]]) -> dict[str, float]:
    """Of charges and dipoles of the frames of all ``parts``, see :class:`Statistics`.

    Raises:
        ValueError: all of them are zero.
    """
    units = {}
    for name in MOMENTS:
        size = _root_mean_square(block for frames in parts for block in _values(frames, name))
        if size == 0.0:
            raise ValueError(f"{name}: all labels of the training frames are zero; leave them out of labels")
        if not np.isnan(size):
            units[name] = size
    return units


def _values(frames: Sequence[Data], name: str) -> Iterator[np.ndarray]:
    """Block after block, the values of a label (n,) that are not NaN."""
    for block in blocks(frames):
        known = selected(block, with_label(block, name))
        if len(known):
            values = values_of(known, name).double().numpy().ravel()
            yield values[~np.isnan(values)]


def _root_mean_square(blocks: Iterable[np.ndarray]) -> float:
    """Of all values; NaN of none."""
    total, count = 0.0, 0
    for values in blocks:
        total, count = total + float(np.square(values).sum()), count + values.size
    return math.sqrt(total / count) if count else math.nan


def elements_without_energy(
    frames: Sequence[Data], known: Collection[str], species: Collection[int] | None = None
) -> list[str]:
    """Symbols of the elements of ``frames``, or of the ``species`` given, that no frame with an energy holds, and that
    are not ``known``."""
    there = set(elements(frames).tolist()) if species is None else set(species)
    if not any("energy" in frame for frame in frames[:1]):
        return []
    fitted = set(elements(selected(frames, with_label(frames, "energy"))).tolist())
    return [symbol for number in sorted(there - fitted) if (symbol := chemical_symbols[number]) not in known]


def _scale(frames: Sequence[Data], species: np.ndarray, shift: np.ndarray) -> float:
    """The unit of errors: see :class:`Statistics`."""
    scale, name = _root_mean_square(_values(frames, "forces")), "forces other than zero"
    if math.isnan(scale):
        beyond = ((energy - atoms @ shift) / atoms.sum(axis=1) for atoms, energy in _energies(frames, species))
        scale, name = _root_mean_square(beyond), "energies other than their reference"
    if scale == 0.0:
        raise ValueError(f"the training frames have no {name}: expected energies in eV and forces in eV/Angstrom")
    return scale
