"""Which atoms see each other: neighbour lists for molecules and periodic cells, never truncated."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.spatial import KDTree
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import BaseTransform

from ._bins import near

ROUNDING = 1e-9  # relative slack of the search; where it is not sure, a strict comparison decides

GPU_ATOMS = 400
"""Of a structure on a GPU that is searched there. 1,000 atoms on an H200 took 4.8 ms in 120 launches and nine waits, on
its host with the copy 15.7 ms; now there are 33 launches and three waits."""


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
    Distances are compared in float64. The search over the atoms and the images near them is scipy's k-d tree, or on a
    GPU, for 400 atoms and more, by all distances, and for some thousands and more in bins.

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
    points, cell, pbc = _checked(pos, cutoff, cell, pbc)

    # The atoms, wrapped into the cell along periodic directions; `home` counts the lattice vectors that were taken
    # away.
    fractional = points @ np.linalg.inv(cell)
    home = np.where(pbc, np.floor(fractional), 0.0)
    wrapped = points - home @ cell
    atom, image = _images(fractional - home, cutoff * (1 + ROUNDING), cell, pbc)

    given = Search(points, wrapped, home, atom, image, cell, cutoff)
    if isinstance(pos, Tensor) and pos.is_cuda and len(pos) >= GPU_ATOMS:
        edge_index, edge_shift = searched_in_bins(given, pos.device)
    else:
        edge_index, edge_shift = searched_in_tree(given)
    return (edge_index.to(pos.device), edge_shift.to(pos)) if isinstance(pos, Tensor) else (edge_index, edge_shift)


class Search(NamedTuple):
    """Atoms, and the images that may be their neighbours.

    Attributes:
        points: The atoms (n, 3), as given.
        wrapped: The same in the cell, along periodic directions.
        home: Lattice vectors between both (n, 3).
        atom: The atom of each image (m,), the atoms themselves included.
        image: Lattice vectors between the wrapped atom and the image (m, 3).
        cell: (3, 3), and invertible.
        cutoff: Angstrom.
    """

    points: np.ndarray
    wrapped: np.ndarray
    home: np.ndarray
    atom: np.ndarray
    image: np.ndarray
    cell: np.ndarray
    cutoff: float


def searched_in_tree(given: Search) -> tuple[Tensor, Tensor]:
    """The edges, by scipy's k-d tree, which knows the distances to rounding."""
    points, wrapped, home, atom, image, cell, cutoff = given
    tree, images = KDTree(wrapped), KDTree(wrapped[atom] + image @ cell)
    near = tree.sparse_distance_matrix(images, cutoff * (1 + ROUNDING), output_type="ndarray")
    target, neighbor = near["i"], near["j"]
    itself = np.flatnonzero(~image.any(axis=1))
    apart = neighbor != itself[target]
    sure = near["v"] < cutoff * (1 - ROUNDING)
    translation = image - home[atom]

    def edges(pair: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        target, neighbor = np.divmod(pair, len(atom))
        return atom[neighbor], target, translation.take(neighbor, axis=0) + home.take(target, axis=0)

    pair = target * np.int64(len(atom)) + neighbor  # images are sorted by atom, then translation
    unsure = pair[apart & ~sure]
    source, target, shift = edges(unsure)
    inside = _are_inside(points[source] - points[target], shift, cell, cutoff)
    pair = np.concatenate([pair[apart & sure], unsure[inside]])
    pair.sort()
    source, target, shift = edges(pair)
    return torch.from_numpy(np.stack([source, target])), torch.from_numpy(shift + 0.0)  # no -0.0


def searched_in_bins(given: Search, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """The same on a GPU: three copies to it, and then few operations."""
    points, wrapped, home, atom, image, cell, cutoff = given
    itself = np.flatnonzero(~image.any(axis=1))  # the image that each atom is
    of_atoms = np.hstack([points, home, itself[:, None], wrapped])
    of_images = np.hstack([image - home[atom], atom[:, None], wrapped[atom] + image @ cell])
    targets, images, vectors = (torch.from_numpy(array).to(device) for array in (of_atoms, of_images, cell))
    target, neighbor = near(targets[:, 7:], images[:, 4:], cutoff * (1 + ROUNDING))

    at_target, at_neighbor = targets[target], images[neighbor]
    source = at_neighbor[:, 3].long()
    shift = at_neighbor[:, :3] + at_target[:, 3:6]
    inside = _are_inside(targets[source, :3] - at_target[:, :3], shift, vectors, cutoff)
    (kept,) = (inside & (neighbor != at_target[:, 6])).nonzero(as_tuple=True)
    return torch.stack([source, target])[:, kept], shift[kept] + 0.0  # no -0.0


def _are_inside(difference, shift, cell, cutoff: float):
    """Whether edges are shorter than the cutoff: of arrays and of tensors, with additions in one order for all, so that
    a shell of atoms right at the cutoff is in all lists or in none."""
    x, y, z = (difference + (shift[:, :1] * cell[0] + shift[:, 1:2] * cell[1] + shift[:, 2:] * cell[2])).T
    return x * x + y * y + z * z < cutoff**2


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
        data.edge_cutoff = torch.tensor([self.cutoff], dtype=torch.float64, device=data.pos.device)
        if cell is not None:
            data.edge_shift, data.cell = edge_shift, torch.as_tensor(cell).view(1, 3, 3)
        if pbc is not None:
            data.pbc = torch.as_tensor(pbc, dtype=torch.bool).view(1, -1).expand(1, 3).clone()
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(cutoff={self.cutoff})"


def _images(fractional: np.ndarray, cutoff: float, cell: np.ndarray, pbc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Atoms and their images that lie less than ``cutoff`` outside the cell's periodic faces.

    Returns the atom's number (m,) and the image's translation in lattice vectors (m, 3), sorted by atom, then
    translation.
    """
    # A point at fractional coordinate f lies |f| / norm(column k of the inverse cell) away from face k.
    margin = cutoff * np.linalg.norm(np.linalg.inv(cell), axis=0) * (1 + ROUNDING) + ROUNDING
    atom, image = np.arange(len(fractional)), np.zeros((len(fractional), 3))
    for k in np.flatnonzero(pbc):
        reach = int(np.ceil(margin[k]))
        steps = np.arange(-reach, reach + 1)
        coordinate = fractional[atom, k, None] + steps
        row, step = np.nonzero((coordinate > -margin[k]) & (coordinate < 1 + margin[k]))
        atom, image = atom[row], image[row]
        image[:, k] = steps[step]
    return atom, image


def _checked(pos, cutoff: float, cell, pbc) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions and an invertible cell as float64 arrays, and three flags."""
    points = _array(pos)
    if points.ndim != 2 or points.shape[1] != 3 or (isinstance(pos, Tensor) and not pos.is_floating_point()):
        raise ValueError(f"pos: expected floating numbers (n, 3), got {points.dtype} of shape {points.shape}")
    points = points.astype(np.float64)
    if not np.isfinite(points).all():
        broken = int(np.argmin(np.isfinite(points).all(axis=1)))
        raise ValueError(f"pos: atom {broken} has a coordinate that is not finite")
    if not 0 < cutoff < float("inf"):
        raise ValueError(f"cutoff: expected a positive number of Angstrom, got {cutoff}")

    pbc = _array(cell is not None if pbc is None else pbc).astype(bool).reshape(-1)
    if pbc.size not in (1, 3):
        raise ValueError(f"pbc: expected one bool or three, got {pbc.size}")
    pbc = np.broadcast_to(pbc, 3)
    if cell is None and pbc.any():
        raise ValueError("cell: missing, but pbc asks for periodic images; give the lattice vectors (3, 3)")
    cell = np.zeros((3, 3)) if cell is None else _array(cell).astype(np.float64)
    if cell.shape not in ((3, 3), (1, 3, 3)) or not np.isfinite(cell).all():
        raise ValueError(f"cell: expected finite lattice vectors (3, 3) or (1, 3, 3), got shape {cell.shape}")
    return points, _completed(cell.reshape(3, 3), pbc), pbc


def _array(given) -> np.ndarray:
    return given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)


def _completed(cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """The cell with unit vectors normal to the periodic ones in the directions that are not periodic."""
    periodic = cell[pbc]
    _, lengths, axes = np.linalg.svd(periodic) if pbc.any() else (None, np.ones(1), np.eye(3))
    if lengths.min() < 1e-6 * max(lengths.max(), 1.0):
        raise ValueError(
            f"cell: the lattice vectors of the periodic directions {pbc.tolist()} span no volume: {cell.tolist()}"
        )
    completed = cell.copy()
    completed[~pbc] = axes[pbc.sum() :]
    return completed
