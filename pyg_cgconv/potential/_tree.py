"""Which atoms see each other, found on a CPU: by scipy's k-d tree, over the atoms and the images near them."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from ._lattice import Lattice, are_inside

ROUNDING = 1e-9  # relative slack of the search; where it is not sure, a strict comparison decides


def searched_in_tree(pos: Tensor, lattice: Lattice, cutoff: float) -> tuple[Tensor, Tensor]:
    """Edges (2, E) and shifts (E, 3) as :func:`~pyg_cgconv.potential.radius_graph` has them, both on the CPU.

    Args:
        pos: Finite float64 positions (n, 3) on a CPU.
    """
    points, cell, pbc = pos.numpy(), lattice.cell, lattice.pbc
    # The atoms, wrapped into the cell along periodic directions; `home` counts the lattice vectors that were taken
    # away.
    fractional = points @ lattice.inverse
    home = np.where(pbc, np.floor(fractional), 0.0)
    wrapped = points - home @ cell
    atom, image = _images(fractional - home, cutoff * (1 + ROUNDING), lattice)

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
    inside = are_inside(points[source] - points[target], shift, cell, cutoff)
    pair = np.concatenate([pair[apart & sure], unsure[inside]])
    pair.sort()
    source, target, shift = edges(pair)
    return torch.from_numpy(np.stack([source, target])), torch.from_numpy(shift + 0.0)  # no -0.0


def _images(fractional: np.ndarray, cutoff: float, lattice: Lattice) -> tuple[np.ndarray, np.ndarray]:
    """Atoms and their images that lie less than ``cutoff`` outside the cell's periodic faces.

    Returns the atom's number (m,) and the image's translation in lattice vectors (m, 3), sorted by atom, then
    translation.
    """
    margin = cutoff / lattice.spacing * (1 + ROUNDING) + ROUNDING
    atom, image = np.arange(len(fractional)), np.zeros((len(fractional), 3))
    for k in np.flatnonzero(lattice.pbc):
        reach = int(np.ceil(margin[k]))
        steps = np.arange(-reach, reach + 1)
        coordinate = fractional[atom, k, None] + steps
        row, step = np.nonzero((coordinate > -margin[k]) & (coordinate < 1 + margin[k]))
        atom, image = atom[row], image[row]
        image[:, k] = steps[step]
    return atom, image
