"""Which atoms see each other: neighbour lists for molecules and periodic cells, never truncated."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import BaseTransform

from ._bins import searched_on_gpu
from ._lattice import lattice
from ._tree import searched_in_tree


def radius_graph(
    pos: Tensor | ArrayLike,
    cutoff: float,
    cell: Tensor | ArrayLike | None = None,
    pbc: Tensor | ArrayLike | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Every pair of atoms, periodic images included, whose distance is strictly below ``cutoff``.

    An edge from source j to target i stands for the vector

    .. math::
        \mathbf{r}_{ij} = \mathbf{r}_j + \mathbf{S} \, \mathbf{h} - \mathbf{r}_i, \qquad |\mathbf{r}_{ij}| < r_c

    with the lattice vectors as the rows of the cell :math:`\mathbf{h}`. Atoms may lie outside the cell, the cell may be
    smaller than the cutoff, and an atom is a neighbour of its own images (never of itself at :math:`\mathbf{S} = 0`).
    Distances are compared in float64. The search is scipy's k-d tree. Of positions on a GPU it is done there: by all
    distances up to some 2,000 atoms, and in bins as wide as the cutoff beyond that. The edges are the same.

    Args:
        pos: Positions (n, 3), array or tensor on any device, Angstrom.
        cutoff: Radius :math:`r_c`, Angstrom.
        cell: Lattice vectors (3, 3) or (1, 3, 3) as rows, Angstrom; None for a molecule.
        pbc: Periodic or not, one bool or three; by default every direction if there is a cell. The lattice vector of a
            direction that is not periodic is never used and may be zero.

    Returns:
        ``edge_index`` (2, E) int64, row 0 the source j, row 1 the target i, sorted by target, then source, then shift;
        and ``edge_shift`` (E, 3), integers in the floating dtype of ``pos`` (float64 for an array), so that
        ``edge_shift @ cell`` needs no cast. Both on the device of ``pos``.

    Raises:
        ValueError: an argument of the wrong shape, not finite, or a periodic direction without a lattice vector.
    """
    points = _positions(pos)
    if not 0 < cutoff < float("inf"):
        raise ValueError(f"cutoff: expected a positive number of Angstrom, got {cutoff}")
    vectors = lattice(cell, pbc)
    if points.is_cuda:
        edge_index, edge_shift = searched_on_gpu(points, vectors, cutoff)
    else:
        edge_index, edge_shift = searched_in_tree(points.cpu(), vectors, cutoff)
    return (edge_index.to(pos.device), edge_shift.to(pos)) if isinstance(pos, Tensor) else (edge_index, edge_shift)


class RadiusGraph(BaseTransform):
    r"""Adds the edges of :func:`radius_graph` to a :class:`~torch_geometric.data.Data`.

    Unlike :class:`torch_geometric.transforms.RadiusGraph` it knows periodic cells and never drops a neighbour.

    Reads ``pos`` (n, 3) and, of a crystal, ``cell`` (1, 3, 3) (or (3, 3), which is reshaped so that a batch stacks it
    to (B, 3, 3)) and ``pbc`` (1, 3) bool (all True without it). Writes

    - ``edge_index`` (2, E) int64, row 0 the source, row 1 the target, sorted by target, also after batching,
    - ``edge_shift`` (E, 3) in the dtype of ``pos``, only where there is a ``cell``,
    - ``edge_cutoff`` (1,) float64, so that a model can tell that a list is too short for it.

    A batch is taken apart and put together again.

    Args:
        cutoff: Radius, Angstrom; neighbours lie strictly below it.

    Raises:
        ValueError: ``cutoff`` is not positive; as :func:`radius_graph`.
    """

    def __init__(self, cutoff: float):
        if not 0 < cutoff < float("inf"):
            raise ValueError(f"cutoff: expected a positive number of Angstrom, got {cutoff}")
        self.cutoff = float(cutoff)

    def forward(self, data: Data) -> Data:
        if isinstance(data, Batch):
            return Batch.from_data_list([self(single) for single in data.to_data_list()])
        if data.pos is None:
            raise ValueError("data.pos: missing; a radius graph needs positions (n, 3)")
        cell, pbc = getattr(data, "cell", None), getattr(data, "pbc", None)
        data.edge_index, edge_shift = radius_graph(data.pos, self.cutoff, cell, pbc)
        data.edge_cutoff = torch.full((1,), self.cutoff, dtype=torch.float64, device=data.pos.device)
        if cell is not None:
            data.edge_shift, data.cell = edge_shift, torch.as_tensor(cell).view(1, 3, 3)
        if pbc is not None:
            data.pbc = torch.as_tensor(pbc, dtype=torch.bool).view(1, -1).expand(1, 3).clone()
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(cutoff={self.cutoff})"


def _positions(pos: Tensor | ArrayLike) -> Tensor:
    """Finite float64 positions (n, 3), of a tensor on its device."""
    points = pos.detach() if isinstance(pos, Tensor) else torch.from_numpy(np.array(pos, dtype=np.float64))
    if points.ndim != 2 or points.shape[1] != 3 or not points.is_floating_point():
        raise ValueError(f"pos: expected floating numbers (n, 3), got {points.dtype} of shape {tuple(points.shape)}")
    points = points.double()
    # Few operations of a sum of all, which is not finite, either, if one number is not; or if it is too large.
    if not math.isfinite(points.sum().item()) and not (finite := points.isfinite().all(dim=1)).all():
        raise ValueError(f"pos: atom {int(finite.byte().argmin())} has a coordinate that is not finite")
    return points
