"""Heads: readouts, energies of atoms and units of energy for several levels of theory, on one body."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from ._arguments import head_names

if TYPE_CHECKING:
    from ._potential import Potential


class Readouts(nn.ModuleList):
    """A readout for each head."""

    def forward(self, x: Tensor, head: Tensor) -> Tensor:
        """What the readout of each atom's ``head`` (n,) makes of its features ``x`` (n, d).

        All readouts are computed, which is little beside the blocks: no shape depends on the heads of a batch, so that
        a CUDA graph can hold it.
        """
        out = self[0](x)
        for number in range(1, len(self)):
            out = torch.where((head == number)[:, None], self[number](x), out)
        return out


def heads_of(data: Data, head: str | None, known: Sequence[str] | None, num_structures: int) -> Tensor | None:
    """The number (B,) int64 of the head of each structure, None of a potential without heads.

    Args:
        data: The batch, perhaps with ``head``, the numbers.
        head: The name of one for all structures, which goes before ``data.head``.
        known: Names of the heads; the first is taken where nothing else is said.

    Raises:
        ValueError: there is no such head, or ``data.head`` has a wrong shape or dtype.
    """
    if known is None or head is not None:
        number = number_of(head, known)
        return None if known is None else data.z.new_full((num_structures,), number, dtype=torch.int64)
    given = getattr(data, "head", None)
    if given is None:
        return data.z.new_zeros(num_structures, dtype=torch.int64)
    if (
        not isinstance(given, Tensor)
        or given.shape != (num_structures,)
        or given.dtype not in (torch.int32, torch.int64)
    ):
        shown = f"{given.dtype} {tuple(given.shape)}" if isinstance(given, Tensor) else repr(given)
        raise ValueError(
            f"data.head: expected integers ({num_structures},), for each structure the number of one of the heads "
            f"{list(known)}, got {shown}"
        )
    return given.long()


def number_of(head: str | None, known: Sequence[str] | None) -> int:
    """The number of the head of this name; of the first if it is None.

    Raises:
        ValueError: there is no such head.
    """
    if head is not None and (known is None or head not in known):
        there = "this potential has no heads; leave it out" if known is None else f"the heads are {', '.join(known)}"
        raise ValueError(f"head={head!r}: {there}")
    return 0 if head is None or known is None else list(known).index(head)


def with_head(potential: Potential, head: str | None = None) -> Potential:
    """What :meth:`Potential.with_head` gives."""
    number = number_of(head, potential.hyperparameters["heads"])
    return _with(potential, None, [number])


def with_heads(potential: Potential, heads: Sequence[str] | Mapping[str, str | None]) -> Potential:
    """A potential with other heads on the same body: the start of a training on several levels of theory.

    Args:
        potential: With or without heads.
        heads: Names. A head that ``potential`` has stays as it is. Any other one starts as its first head, or as itself
            if it has none. A dict names for each head the one that it starts as.

    Raises:
        ValueError: a dict names a head that ``potential`` does not have, or two heads have the same name.
    """
    known = potential.hyperparameters["heads"]
    names = head_names(list(heads)) or []
    starts = heads if isinstance(heads, Mapping) else {head: head if head in (known or ()) else None for head in names}
    return _with(potential, names, [number_of(start, known) for start in starts.values()])


def _with(potential: Potential, heads: list[str] | None, numbers: list[int]) -> Potential:
    """A copy with ``heads``, or with none, each as that of a number."""
    made = copy.deepcopy(potential)
    before = list(made.readout) if isinstance(made.readout, Readouts) else [made.readout]
    made.readout = before[numbers[0]] if heads is None else Readouts(copy.deepcopy(before[n]) for n in numbers)
    made.hyperparameters["heads"] = heads
    for name in ("shift", "scale"):
        rows = made.get_buffer(name).view(-1, len(made.atomic_numbers))[numbers]
        rows = rows[0] if heads is None else rows
        setattr(made, name, rows)
        made.hyperparameters[name] = rows.tolist()
    return made
