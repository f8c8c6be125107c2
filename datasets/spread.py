"""What is in a set of structures: how many, of which elements, and how its labels are spread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch_geometric.data import Data
from tqdm import tqdm

from datasets.ase_atoms import import_ase
from datasets.qm9_targets import TARGETS
from pyg_cgconv.potential import cell_volumes, radius_graph

LABELS = ("energy", "forces", "stress", "y")
SECONDS_BEFORE_A_BAR = 5


@dataclass(frozen=True)
class Spread:
    """How the values of a quantity are spread.

    Args:
        unit: That of all that follows but ``count``; empty for numbers without one.
        count: How many values there are.
        min, max, mean: Of them.
        std: Their standard deviation about the mean.
        rms: The root of their mean square.
    """

    unit: str
    count: int
    min: float
    max: float
    mean: float
    std: float
    rms: float

    @classmethod
    def of(cls, unit: str, values: np.ndarray) -> Spread:
        """Of ``values`` (n,), one or more."""
        rms = np.sqrt(np.square(values).mean())
        least, most, mean, std = values.min(), values.max(), values.mean(), values.std()
        return cls(unit, len(values), float(least), float(most), float(mean), float(std), float(rms))


@dataclass(frozen=True)
class Statistics:
    """What a set of structures holds.

    Args:
        structures: How many.
        periodic: How many of them are periodic in one direction or more.
        atoms: Atoms of all structures.
        smallest, largest: Atoms of the smallest and of the largest structure.
        elements: Atoms of each element, by chemical symbol, in the order of atomic numbers.
        labels: Structures that have each label: ``energy``, ``forces``, ``stress``, ``y``. NaN counts as none.
        quantities: How values are spread, by what they are: the energy of a structure over its atoms, components of
            forces and stresses (of the latter all nine), the length of the force on an atom, of
            crystals the volume over the atoms, neighbours of an atom, properties of QM9.
        values: The same values, (n,) float64 each, to be plotted.
    """

    structures: int
    periodic: int
    atoms: int
    smallest: int
    largest: int
    elements: dict[str, int]
    labels: dict[str, int]
    quantities: dict[str, Spread]
    values: dict[str, np.ndarray] = field(repr=False, compare=False)

    def to_dict(self) -> dict:
        """All but ``values``, as JSON has it."""
        return {name: value for name, value in asdict(self).items() if name != "values"}

    def __str__(self) -> str:
        size = f"{self.smallest}" if self.smallest == self.largest else f"{self.smallest} to {self.largest}"
        lines = {
            "structures": f"{self.structures}, of which {self.periodic} are periodic",
            "atoms": f"{self.atoms}, {size} in a structure",
            "elements": ", ".join(f"{symbol} {count}" for symbol, count in self.elements.items()),
            "labels": ", ".join(f"{name} of {count}" for name, count in self.labels.items()) or "none",
        }
        return "\n".join([*(f"{name:12}{line}" for name, line in lines.items()), "", *self._table()])

    def _table(self) -> list[str]:
        columns = ("min", "max", "mean", "std", "rms")
        width = max(map(len, self.quantities), default=0) + 2
        rows = [f"{'':{width}}{'unit':15}{'number':>9}" + "".join(f"{name:>13}" for name in columns)]
        for name, spread in self.quantities.items():
            numbers = "".join(f"{getattr(spread, column):13.6g}" for column in columns)
            rows.append(f"{name:{width}}{spread.unit:15}{spread.count:9}{numbers}")
        return rows


def statistics(structures: Iterable[Data], cutoff: float | None = None) -> Statistics:
    """Counts and spreads of ``structures``, such as a data set or a part of one.

    Args:
        structures: With ``z`` (n,), ``pos`` (n, 3) in Angstrom, and as far as there are ``energy`` (1,) in eV,
            ``forces`` (n, 3) in eV/Angstrom, ``stress`` (1, 3, 3) in eV/Angstrom^3, ``cell`` and ``pbc``, ``y`` of QM9.
        cutoff: Angstrom; the neighbours of each atom that are nearer are counted, periodic images included. Without it
            nothing is said of neighbours, and edges that are there are not read.

    Raises:
        ImportError: ASE, which knows the chemical symbols, is not installed.
        TypeError: an item is no :class:`~torch_geometric.data.Data`.
        ValueError: there are no structures, one lacks ``z`` or ``pos``, or ``cutoff`` is not positive.
    """
    if cutoff is not None and not 0 < cutoff < float("inf"):
        raise ValueError(f"cutoff: expected a positive number of Angstrom, got {cutoff}")
    symbols = import_ase("statistics").data.chemical_symbols
    sizes: list[int] = []
    periodic, elements, labels = 0, Counter[int](), Counter[str]()
    found = _Values()
    for number, data in enumerate(tqdm(structures, "structures", delay=SECONDS_BEFORE_A_BAR, leave=False)):
        _check(data, number)
        sizes.append(len(data.z))
        periodic += _is_periodic(data)
        elements.update(data.z.tolist())
        labels.update(name for name in LABELS if _is_there(data, name))
        found.add_labels(data)
        if cutoff is not None:
            found.add_neighbors(data, cutoff)
    if not sizes:
        raise ValueError("structures: expected one or more, got none")
    values = found.joined()
    return Statistics(
        structures=len(sizes),
        periodic=periodic,
        atoms=sum(sizes),
        smallest=min(sizes),
        largest=max(sizes),
        elements={symbols[z]: elements[z] for z in sorted(elements)},
        labels={name: labels[name] for name in LABELS if labels[name]},
        quantities={name: Spread.of(found.units[name], each) for name, each in values.items()},
        values=values,
    )


class _Values:
    """Values of each quantity, structure after structure, and their units."""

    def __init__(self):
        self.parts: dict[str, list[np.ndarray]] = {}
        self.units: dict[str, str] = {}

    def add(self, name: str, unit: str, values: np.ndarray) -> None:
        self.units[name] = unit
        self.parts.setdefault(name, []).append(values.reshape(-1))

    def add_labels(self, data: Data) -> None:
        if _is_there(data, "energy"):
            self.add("energy / atoms", "eV", _array(data.energy) / len(data.z))
        if _is_there(data, "forces"):
            forces = _array(data.forces)
            self.add("force component", "eV/Angstrom", forces)
            self.add("force on an atom", "eV/Angstrom", np.linalg.norm(forces, axis=1))
        if _is_there(data, "stress"):
            self.add("stress component", "eV/Angstrom^3", _array(data.stress))
        if _is_periodic(data) and (data.get("pbc") is None or data.pbc.all()):
            volume = cell_volumes(data.cell.double().reshape(1, 3, 3))
            self.add("volume / atoms", "Angstrom^3", _array(volume) / len(data.z))
        if _is_there(data, "y") and data.y.shape == (1, len(TARGETS)):
            for target, value in zip(TARGETS.values(), _array(data.y)[0], strict=True):
                self.add(target.name, target.unit, value)

    def add_neighbors(self, data: Data, cutoff: float) -> None:
        edge_index, _ = radius_graph(data.pos, cutoff, data.get("cell"), data.get("pbc"))
        count = torch.bincount(edge_index[1], minlength=len(data.z))
        self.add(f"neighbours within {cutoff:g} A", "", _array(count))

    def joined(self) -> dict[str, np.ndarray]:
        """All values but NaN, which is none."""
        joined = {name: np.concatenate(parts) for name, parts in self.parts.items()}
        return {name: values[~np.isnan(values)] for name, values in joined.items() if not np.isnan(values).all()}


def _array(values: torch.Tensor) -> np.ndarray:
    return values.detach().cpu().double().numpy()


def _check(data, number: int) -> None:
    if not isinstance(data, Data):
        raise TypeError(f"structures: expected torch_geometric Data, got {type(data).__name__} as number {number}")
    for name in ("z", "pos"):
        if data.get(name) is None:
            raise ValueError(f"structures: number {number} has no `{name}`; expected `z` (n,) and `pos` (n, 3)")


def _is_there(data: Data, name: str) -> bool:
    value = data.get(name)
    return value is not None and not bool(value.isnan().all())


def _is_periodic(data: Data) -> bool:
    if data.get("cell") is None:
        return False
    return data.get("pbc") is None or bool(data.pbc.any())
