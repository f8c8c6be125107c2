"""What a potential says of atoms: what its network has learned of them, and the energies, charges and dipoles of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import scatter

from ..nn import one_hot
from ._atoms import Atoms
from ._ghosts import Ghosts
from ._rounds import rounds

if TYPE_CHECKING:
    from ._potential import Potential


def results_of(potential: Potential, atoms: Atoms, data: Data, of_atoms: bool) -> dict[str, Tensor]:
    """Total energies (B,), if asked for those ``of_atoms`` (n,), charges and dipoles, in float64."""
    learned, out = learned_of(potential, atoms).double(), {}
    if "energy" in potential.hyperparameters["properties"]:
        energies, learned = _scaled(potential, learned[:, 0], atoms), learned[:, 1:]
        out["energy"] = scatter(energies, atoms.structure, dim_size=atoms.num_structures)
        out |= {"energies": energies} if of_atoms else {}
    return out if potential.moments is None else out | potential.moments(learned, data, atoms)


def energies_of_atoms(potential: Potential, atoms: Atoms, ghosts: Ghosts | None = None) -> Tensor:
    """(n,) float64; without the ``ghosts`` among the atoms, if there are some."""
    return _scaled(potential, learned_of(potential, atoms, ghosts)[:, 0].double(), atoms)


def learned_of(potential: Potential, atoms: Atoms, ghosts: Ghosts | None = None) -> Tensor:
    """(n, readout_irreps.dim), in the potential's dtype: embedding, rounds of message passing, readout."""
    update = rounds(potential, atoms, None if ghosts is None else ghosts.owned)
    x = potential.embedding(_one_hot(potential, atoms))
    if ghosts is not None:  # whose species are known
        x = (x, x[: ghosts.owned])
    for number, block in enumerate(potential.blocks):
        if ghosts is not None and number:
            x = ghosts.pair(x)
        x = update(block, x)
    return potential.readout(x) if atoms.head is None else potential.readout(x, atoms.head_of_atom)


def _one_hot(potential: Potential, atoms: Atoms) -> Tensor:
    """The species of atoms (n, S)."""
    rows = None if atoms.rows is None else atoms.rows[0]
    if isinstance(rows, Tensor) and rows.dim() == 2:
        return rows
    return one_hot(atoms.species, len(potential.atomic_numbers), potential.dtype)


def _scaled(potential: Potential, learned: Tensor, atoms: Atoms) -> Tensor:
    """Energies (n,) from what was learned of atoms."""
    species = atoms.species[: len(learned)]
    row = species if atoms.head is None else (atoms.head_of_atom, species)
    energies = potential.shift[row] + potential.scale[row] * learned
    return energies if potential.zbl is None else energies + potential.zbl(atoms)[: len(learned)]
