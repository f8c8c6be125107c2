"""Sizes to which batches are filled up: a CUDA graph serves one shape, and few shapes shall serve all batches."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

# Each size is an eighth larger than the next smaller one, so a batch fills at least eight ninths of its atoms or edges,
# and at most six sizes lie between a batch and one of twice its size.
GROWTH = 9 / 8
# Two padding atoms at least: padding edges join different atoms, which have a length and a direction.
MIN_PADDING_ATOMS = 2


@dataclass(frozen=True)
class PaddedSize:
    """Shape of a padded batch.

    Args:
        frames: of the batch; one of padding comes behind them.
        atoms: all, at least two of them padding.
        edges: all.
    """

    frames: int
    atoms: int
    edges: int


class PaddedSizes:
    """The sizes of all batches that can be drawn from a set of frames, each once.

    The largest holds the frames of most atoms and of most edges; the others are :data:`GROWTH` to some power smaller.
    Molecules of one kind all take the largest.

    Args:
        num_atoms: (frames,) atoms of each frame.
        num_edges: (frames,) edges of each frame.
    """

    def __init__(self, num_atoms: ArrayLike, num_edges: ArrayLike):
        self.num_atoms, self.num_edges = np.asarray(num_atoms), np.asarray(num_edges)
        if self.num_atoms.shape != self.num_edges.shape or self.num_atoms.ndim != 1 or not len(self.num_atoms):
            raise ValueError(
                f"num_atoms and num_edges: expected a number for each of some frames, got shapes "
                f"{self.num_atoms.shape} and {self.num_edges.shape}"
            )
        self._most_atoms = np.sort(self.num_atoms)[::-1].cumsum()
        self._most_edges = np.sort(self.num_edges)[::-1].cumsum()

    def size_of(self, frames: np.ndarray) -> PaddedSize:
        """The smallest size that holds the ``frames`` with these numbers, each at most once."""
        count = len(frames)
        atoms, edges = int(self.num_atoms[frames].sum()), int(self.num_edges[frames].sum())
        most_atoms, most_edges = int(self._most_atoms[count - 1]), int(self._most_edges[count - 1])
        power = int(math.log(min(most_atoms / max(1, atoms), most_edges / max(1, edges)) or 1.0, GROWTH))
        while power and (
            math.ceil(most_atoms / GROWTH**power) < atoms or math.ceil(most_edges / GROWTH**power) < edges
        ):
            power -= 1  # the logarithm was rounded up
        return self._size(count, math.ceil(most_atoms / GROWTH**power), math.ceil(most_edges / GROWTH**power))

    def waste(self, batch_size: int, batches: int = 200) -> float:
        """The part of the edges that is padding, 0 to 1, in ``batches`` random batches."""
        random = np.random.default_rng(0)
        drawn = [random.permutation(len(self.num_atoms))[:batch_size] for _ in range(batches)]
        padded = sum(self.size_of(frames).edges for frames in drawn)
        return 1 - sum(int(self.num_edges[frames].sum()) for frames in drawn) / max(1, padded)

    def _size(self, frames: int, atoms: int, edges: int) -> PaddedSize:
        """With so many padding atoms that they need no more edges than other atoms: a kernel waits for the atom that
        has most."""
        edges_per_atom = max(1.0, self.num_edges.sum() / max(1, self.num_atoms.sum()))
        between_sizes = edges * (1 - 1 / GROWTH)
        above_mean = self._most_edges[frames - 1] - frames * self.num_edges.mean()
        padding = math.ceil(min(between_sizes, above_mean) / edges_per_atom)
        return PaddedSize(frames, atoms + max(MIN_PADDING_ATOMS, padding), edges)
