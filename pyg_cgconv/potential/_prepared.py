"""A batch with what a potential reads of it and no weight changes: made once, or before the step that needs it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch_geometric.data import Data

from .._functions import without_autocast
from ._atoms import Atoms
from ._rounds import made_ahead

if TYPE_CHECKING:
    from ._potential import Potential

READ = ("species", "cutoff", "lmax", "num_radial", "cutoff_power", "radial_species", "heads")
"""Hyperparameters on which it depends what is read of a batch."""


@dataclass(frozen=True)
class Prepared:
    """What :func:`prepared` makes, for the potential that it was made by and for others that read a batch alike.

    Attributes:
        data: The batch, which must stay as it is.
        atoms: What was read of it.
        head: The name of the head that all structures take, if one was given.
        read_with: The dtype and the hyperparameters of the potential on which ``atoms`` depend.
    """

    data: Data
    atoms: Atoms
    head: str | None
    read_with: dict[str, Any]

    def atoms_for(self, potential: Potential, head: str | None) -> Atoms:
        """The atoms, with vectors that may be asked for gradients.

        Raises:
            ValueError: the potential reads a batch otherwise, or the head is another one.
        """
        for name, value in _read_with(potential).items():
            if value != self.read_with[name]:
                raise ValueError(
                    f"data: prepared for a potential with {name}={self.read_with[name]}, but this one has "
                    f"{name}={value}; give it prepared(potential, data) of its own"
                )
        if head not in (None, self.head):
            raise ValueError(f"head: {head!r}, but the batch was prepared with {self.head!r}; give it to prepared()")
        vectors = self.atoms.vectors
        return replace(self.atoms, vectors=vectors.view_as(vectors))


def _read_with(potential: Potential) -> dict[str, Any]:
    return {"dtype": potential.dtype, **{name: potential.hyperparameters[name] for name in READ}}


@without_autocast
def prepared(potential: Potential, data: Data, *, head: str | None = None, forces: bool = True) -> Prepared:
    """Reads a batch for ``potential(...)``: sorted edges, spherical harmonics and radial functions with their slopes.

    A training step that is repeated, or whose batch waits while another one is computed, saves the time of it. Forces
    and stresses can then be computed as always, and differentiated by weights.

    Args:
        data, head: As in :meth:`Potential.forward`.
        forces: Whether forces will be differentiated by weights; without slopes that takes longer.

    Raises:
        ValueError: an attribute of ``data`` is missing or wrong, or positions, shifts or a cell ask for gradients.
    """
    for name in ("pos", "edge_shift", "cell"):
        value = getattr(data, name, None)
        if isinstance(value, torch.Tensor) and value.requires_grad:
            raise ValueError(
                f"data.{name}: asks for gradients, but what is prepared is not differentiated by it; give "
                f"data.{name}.detach(), or the potential the batch itself"
            )
    with torch.inference_mode(False), torch.no_grad():
        atoms = made_ahead(potential, potential._read(data, head), forces)
    return Prepared(data, atoms, head, _read_with(potential))
