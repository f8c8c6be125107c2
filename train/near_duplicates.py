"""How different two structures are, whatever their place, their rotation and the order of their atoms."""

import numpy as np
from torch import Tensor
from torch_geometric.data import Data

NEAREST = 12  # neighbours of each atom that are compared: the first shell of a close-packed crystal


def fingerprint(frame: Data, cutoff: float) -> np.ndarray:
    """Distances (n, NEAREST) of each atom to its nearest neighbours, in Angstrom, of less than ``cutoff``.

    Atoms come by element. Within an element each column is sorted, so that their order counts nothing; missing
    neighbours are at the cutoff. Small moves of atoms change every number by little.

    Args:
        frame: with neighbours within the cutoff.
    """
    distances = np.full((frame.num_nodes, NEAREST), cutoff)
    target, length = frame.edge_index[1].numpy(), np.minimum(edge_lengths(frame).numpy(), cutoff)
    order = np.lexsort((length, target))
    target, length = target[order], length[order]
    place = np.arange(len(target)) - np.searchsorted(target, target)  # among the neighbours of its atom
    near = place < NEAREST
    distances[target[near], place[near]] = length[near]
    numbers = frame.z.numpy()
    return np.concatenate([np.sort(distances[numbers == z], axis=0) for z in np.unique(numbers)])


def edge_lengths(frame: Data) -> Tensor:
    source, target = frame.edge_index
    vectors = frame.pos[source] - frame.pos[target]
    if "edge_shift" in frame:
        vectors = vectors + frame.edge_shift @ frame.cell[0]
    return vectors.norm(dim=-1)


class Distinct:
    """Structures that have been chosen so far, each of which differs from all before it.

    Args:
        smallest: root mean square difference of fingerprints, Angstrom, below which two structures are the same; 0
            tells none apart as duplicates.
    """

    def __init__(self, smallest: float):
        self.smallest = smallest
        self._known: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}  # by the elements of all atoms

    def duplicate_of(self, number: int, frame: Data, cutoff: float) -> int | None:
        """The number of a structure that ``frame`` is nearly the same as; without one, it is kept as ``number``."""
        if not self.smallest:
            return None
        found = fingerprint(frame, cutoff)
        alike = self._known.setdefault(tuple(sorted(frame.z.tolist())), [])
        for other, known in alike:
            if np.sqrt(np.square(found - known).mean()) < self.smallest:
                return other
        alike.append((number, found))
        return None
