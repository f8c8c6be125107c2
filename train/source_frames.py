"""Frames together with the files that they come from, and a look for those that are in several parts of a split."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch_geometric.data import Data


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """A frame and where it was read: the file, and which of its frames it is, from 0; and if atoms are held fixed."""

    frame: Data
    file: Path
    number: int
    constrained: bool = False

    @property
    def place(self) -> str:
        return f"{self.file}: frame {self.number}"

    def structure(self) -> bytes:
        """The same for frames of the same elements, positions and periodic cell, bit for bit, whatever their labels."""
        frame = self.frame
        held = [frame.z, frame.pos + 0.0]  # so that -0.0 is 0.0
        if "pbc" in frame and frame.pbc.any():
            held += [frame.cell + 0.0, frame.pbc]
        return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in held)).digest()


def warn_of_duplicates(
    train: Sequence[SourceFrame], validation: Sequence[SourceFrame], test: Sequence[SourceFrame]
) -> None:
    """Warns, once for all, where structures are in several of the three lists."""
    parts = {"training": train, "validation": validation, "test": test}
    files = {name: {source.structure(): source.file.name for source in sources} for name, sources in parts.items()}
    found = [
        _duplicates(files[name], files[other], name, other)
        for name, other in (("validation", "training"), ("test", "training"), ("test", "validation"))
        if files[name].keys() & files[other].keys()
    ]
    if found:
        rank_zero_warn(
            f"the same structures in several parts: {'; '.join(found)}. Errors of these frames say nothing of new "
            "structures: leave them out of one of the files"
        )


def _duplicates(files: dict[bytes, str], others: dict[bytes, str], name: str, other: str) -> str:
    """How many of ``files`` are among the ``others``, and in which."""
    shared = files.keys() & others.keys()
    places = sorted({files[structure] for structure in shared} | {others[structure] for structure in shared})
    return f"{len(shared)} of the {name} frames are {other} frames ({', '.join(places)})"
