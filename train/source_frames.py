"""Frames together with the files that they come from, and a look for those that are in several parts of a split."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch_geometric.data import Data

from train.frame_table import FrameTable, place_in

SAME_PLACE = 1e-6  # Angstrom: files print as many digits


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


class TableSources(Sequence[SourceFrame]):
    """The frames of a table, of which only what is asked for is read."""

    def __init__(self, frames: FrameTable):
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, which):
        if isinstance(which, slice | np.ndarray):
            return TableSources(self.frames[which])
        columns, row = self.frames.columns, int(self.frames.rows[which])
        file, number = columns.values["source"][row].tolist()
        view = cast(Data, self.frames.view(which))  # it has what is looked at
        return SourceFrame(view, columns.files[file], number, bool(columns.values["constrained"][row]))


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
    kinds, means = _sketches(others)
    order = np.lexsort((means, kinds))
    kinds, means = kinds[order], means[order]
    found = []
    for i, (kind, mean) in enumerate(zip(*_sketches(sources), strict=True)):
        first, last = np.searchsorted(kinds, kind), np.searchsorted(kinds, kind, side="right")
        # A mean of coordinates differs by no more than they do: few others are near by it, and only these are compared.
        near = first + np.searchsorted(means[first:last], mean + np.array([-2, 2]) * SAME_PLACE)
        for j in sorted(order[near[0] : near[1]].tolist()):
            if _are_same(sources[i], others[j]):
                found.append((i, j))
                break
    return found


def _are_same(source: SourceFrame, other: SourceFrame) -> bool:
    return (
        source.kind() == other.kind()
        and (np.abs(source.coordinates() - other.coordinates()).max() <= SAME_PLACE).item()
    )


def _sketches(sources: Sequence[SourceFrame]) -> tuple[np.ndarray, np.ndarray]:
    """Of each frame (frames,) a number that tells its kind from most others, and a mean of its coordinates."""
    kinds, means = np.empty(len(sources), np.int64), np.empty(len(sources))
    for number, source in enumerate(sources):
        row = source.coordinates()
        kinds[number], means[number] = hash(source.kind()), row @ _weights(len(row))
    return kinds, means


@lru_cache(maxsize=100)
def _weights(count: int) -> np.ndarray:
    """Weights (count,) of a mean, no two of them the same."""
    return np.random.default_rng(0).dirichlet(np.ones(count))
