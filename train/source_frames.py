"""Frames together with the files that they come from, and a look for those that are in several parts of a split."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch_geometric.data import Data

SAME_PLACE = 1e-6  # Angstrom: files print as many digits


def place_in(file: Path, number: int) -> str:
    return f"{file}: frame {number}"


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """A frame and where it was read: the file, and which of its frames it is, from 0; and if atoms are held fixed."""

    frame: Data
    file: Path
    number: int
    constrained: bool = False

    @property
    def head(self) -> int:
        """The number of its level of theory; 0 where there is one."""
        return int(self.frame.head) if "head" in self.frame else 0

    @property
    def place(self) -> str:
        return place_in(self.file, self.number)

    def kind(self) -> tuple[bytes, bytes]:
        """Elements and periodic directions, without which two structures are not the same."""
        pbc = self.frame.pbc.numpy().tobytes() if self._periodic() else b""
        return self.frame.z.numpy().tobytes(), pbc

    def coordinates(self) -> np.ndarray:
        """Positions, and the cell if it is periodic, in one row, Angstrom."""
        parts = [self.frame.pos, *([self.frame.cell] if self._periodic() else [])]
        return np.concatenate([part.numpy().ravel() for part in parts])

    def _periodic(self) -> bool:
        return "pbc" in self.frame and bool(self.frame.pbc.any())


def name_places(frames: Sequence[Data], files: Sequence[Path]) -> None:
    """Gives ``frames``, read from ``files`` with their ``source``, their ``place``, in place."""
    for frame in frames:
        file, number = frame.source[0].tolist()
        frame.place = place_in(files[file], number)


def warn_of_duplicates(
    train: Sequence[SourceFrame], validation: Sequence[SourceFrame], test: Sequence[SourceFrame]
) -> None:
    """Warns, once for all, where structures are in several of the three lists."""
    parts = {"training": train, "validation": validation, "test": test}
    found = [
        text
        for name, other in (("validation", "training"), ("test", "training"), ("test", "validation"))
        if (text := _duplicates(parts[name], parts[other], name, other))
    ]
    if found:
        rank_zero_warn(
            f"the same structures in several parts: {'; '.join(found)}. Errors of these frames say nothing of new "
            "structures: leave them out of one of the files"
        )


def _duplicates(sources: Sequence[SourceFrame], others: Sequence[SourceFrame], name: str, other: str) -> str:
    """How many of ``sources`` are among the ``others``, and in which files; nothing of none."""
    pairs = same_structures(sources, others)
    files = sorted({source.file.name for i, j in pairs for source in (sources[i], others[j])})
    return f"{len(pairs)} of the {name} frames are {other} frames ({', '.join(files)})" if pairs else ""


def same_structures(sources: Sequence[SourceFrame], others: Sequence[SourceFrame]) -> list[tuple[int, int]]:
    """Numbers of those of ``sources`` that have the same elements in the same places as one of ``others``, and of it.

    Coordinates are the same within :data:`SAME_PLACE`.
    """
    by_kind = defaultdict(list)
    for j, source in enumerate(others):
        by_kind[source.kind()].append(j)
    found = []
    wanted = defaultdict(list)
    for i, source in enumerate(sources):
        if source.kind() in by_kind:
            wanted[source.kind()].append(i)
    for kind, numbers in wanted.items():
        known = np.stack([others[j].coordinates() for j in by_kind[kind]])
        # A mean of coordinates differs by no more than they do: few others are near by it, and only these are compared.
        weights = np.random.default_rng(0).dirichlet(np.ones(known.shape[1]))
        order = np.argsort(known @ weights)
        means = (known @ weights)[order]
        for i in numbers:
            row = sources[i].coordinates()
            first, last = np.searchsorted(means, row @ weights + np.array([-2, 2]) * SAME_PLACE)
            near = order[first:last]
            same = near[np.abs(known[near] - row).max(axis=1) <= SAME_PLACE]
            if len(same):
                found.append((i, by_kind[kind][same.min()]))
    return sorted(found)
