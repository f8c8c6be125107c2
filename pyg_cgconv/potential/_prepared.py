"""A batch with what a potential reads of it and no weight changes: made once, or before the step that needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch_geometric.data import Data

from ._atoms import Atoms
from ._rounds import made_ahead

if TYPE_CHECKING:
    from ._potential import Potential


@dataclass(frozen=True)
class Prepared:
    """What :func:`prepared` makes, for the potential that it was made by.

    Attributes:
        data: The batch, which must stay as it is.
        atoms: What was read of it.
        head: The name of the head that all structures take, if one was given.
    """

    data: Data
    atoms: Atoms
    head: str | None = None

    def atoms_for(self, head: str | None) -> Atoms:
        """Raises a ValueError if the head is another one."""
        if head not in (None, self.head):
            raise ValueError(f"head: {head!r}, but the batch was prepared with {self.head!r}; give it to prepared()")
        return self.atoms


def prepared(potential: Potential, data: Data, *, head: str | None = None, forces: bool = True) -> Prepared:
    """Reads a batch for ``potential(...)``: sorted edges, spherical harmonics and radial functions with their slopes.

    A training step that is repeated, or whose batch waits while another one is computed, saves the time of it. Forces
    and stresses can then be computed as always, and differentiated by weights.

    Args:
        data, head: As in :meth:`Potential.forward`.
        forces: Whether forces will be differentiated by weights; without slopes that takes longer.

    Raises:
        ValueError: an attribute of ``data`` is missing or wrong, or positions or a cell ask for gradients.
    """
    for name in ("pos", "cell"):
        value = getattr(data, name, None)
        if isinstance(value, torch.Tensor) and value.requires_grad:
            raise ValueError(
                f"data.{name}: asks for gradients, but what is prepared is not differentiated by it; give "
                f"data.{name}.detach(), or the potential the batch itself"
            )
    with torch.no_grad():
        return Prepared(data, made_ahead(potential, potential._read(data, head), forces), head)
