"""Structures for a trained model to look at: any file that ASE reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from datasets import AtomsFile
from pyg_cgconv.potential import RadiusGraph


@dataclass(frozen=True)
class DataFiles:
    """Data: files of structures.

    Args:
        data: the files.
        format: ASE's name of their format, such as extxyz or vasp-xdatcar (default: told by name and content).
        num_workers: processes that look for neighbours; 0 does it in this one.
    """

    DATA_HELP: ClassVar[str] = "files of molecules or crystals: extended XYZ, or any other that ASE reads"

    data: Sequence[Path] = ()
    format: str | None = None
    num_workers: int = 0

    def __post_init__(self):
        if self.num_workers < 0:
            raise ValueError(f"num_workers={self.num_workers}: expected 0 or more")

    def read(self, cutoff: float, **labels) -> AtomsFile:
        """The structures with neighbours within ``cutoff``, Angstrom; ``labels`` as in :class:`datasets.AtomsFile`.

        Raises:
            FileNotFoundError, ValueError: a file is missing, cut short or of a format that ASE does not know.
        """
        if not self.data:
            raise ValueError("data: no file given, name one or more with --data FILE ...")
        return AtomsFile(
            list(self.data),
            format=self.format,
            pre_transform=RadiusGraph(cutoff),
            num_workers=self.num_workers,
            **labels,
        )
