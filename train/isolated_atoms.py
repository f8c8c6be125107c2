"""Frames of isolated atoms: they give the energies that atoms start from, and a potential learns nothing else of them.

A potential gives an atom without neighbours the energy of its element, whatever it has learned, and no force.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ase.data import chemical_symbols
from torch_geometric.data import Data

# Energies of one element that differ by less are the same, in eV: boxes and printed digits differ by as much.
ROUNDING = 1e-3


@dataclass(frozen=True)
class IsolatedAtom:
    """Its element, its energy in eV, where it was found, and the number of its head, if there are heads."""

    symbol: str
    energy: float
    place: str
    head: int = 0

    @classmethod
    def of(cls, frame: Data, place: str) -> "IsolatedAtom":
        """Raises ValueError where it has no energy: it would say nothing."""
        symbol, energy = chemical_symbols[frame.z.item()], frame.energy.item()
        if math.isnan(energy):
            raise ValueError(f"{place} is an isolated atom of {symbol} without an energy: give one, or leave it out")
        return cls(symbol, energy, place, frame.head.item() if "head" in frame else 0)


def isolated_energies(atoms: Sequence[IsolatedAtom], given: Mapping[str, float]) -> dict[str, float]:
    """Energy of each element that is among ``atoms`` and not ``given``, eV, by chemical symbol.

    Raises:
        ValueError: two frames of such an element disagree.
    """
    first: dict[str, IsolatedAtom] = {}
    for atom in atoms:
        known = first.setdefault(atom.symbol, atom)
        if abs(atom.energy - known.energy) > ROUNDING and atom.symbol not in given:
            raise ValueError(
                f"isolated atoms of {atom.symbol} have different energies, {known.energy} eV ({known.place}) and "
                f"{atom.energy} eV ({atom.place}): leave one of them out, or give --atom_energies "
                f'"{{{atom.symbol}: {known.energy}}}"'
            )
    return {symbol: atom.energy for symbol, atom in first.items() if symbol not in given}


def describe_isolated(atoms: Sequence[IsolatedAtom], given: Mapping[str, float], species: Collection[str]) -> str:
    """What became of the frames of isolated ``atoms``, of which there are some.

    Args:
        given: energies by symbol that go before theirs.
        species: symbols of the elements that are learned.
    """
    energies = isolated_energies(atoms, given)
    taken = [f"{symbol} {energy:.4f} eV" for symbol, energy in energies.items() if symbol in species]
    replaced = sorted({atom.symbol for atom in atoms} & given.keys())
    foreign = sorted(energies.keys() - species)
    lines = [f"isolated atoms: {len(atoms)} frames, left out of training, validation and test"]
    lines += [f"  their energies are taken: {', '.join(sorted(taken))}"] if taken else []
    lines += [f"  atom_energies goes before that of {', '.join(replaced)}"] if replaced else []
    lines += [f"  not learned, because no other training frame holds it: {', '.join(foreign)}"] if foreign else []
    return "\n".join(lines)
