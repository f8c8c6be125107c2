"""Structures for a trained model to look at: any file that ASE reads."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ase.data import chemical_symbols

from datasets import AtomsFile
from pyg_cgconv.potential import Potential, RadiusGraph


@dataclass(frozen=True, kw_only=True)
class StructureFiles:
    """Files, of an option whose name a subclass says.

    Args:
        format: ASE's name of their format, such as extxyz or vasp-xdatcar (default: told by name and content).
        num_workers: processes that look for neighbours; 0 does it in this one.
        charge_key: name of the total charge, e, which charges and dipoles depend on; 0 if it is not there.
    """

    OPTION: ClassVar[str]
    HELP: ClassVar[str]

    format: str | None = None
    num_workers: int = 0
    charge_key: str = "charge"

    def __post_init__(self):
        if self.num_workers < 0:
            raise ValueError(f"num_workers={self.num_workers}: expected 0 or more")

    @property
    def files(self) -> list[Path]:
        return list(getattr(self, self.OPTION))

    def read(self, cutoff: float, **labels) -> AtomsFile:
        """The structures with neighbours within ``cutoff``, Angstrom; ``labels`` as in :class:`datasets.AtomsFile`.

        Raises:
            FileNotFoundError, ValueError: a file is missing, cut short or of a format that ASE does not know.
        """
        if not self.files:
            raise ValueError(f"{self.OPTION}: no file given, name one or more with --{self.OPTION} FILE ...")
        return AtomsFile(
            self.files,
            format=self.format,
            pre_transform=RadiusGraph(cutoff),
            num_workers=self.num_workers,
            charge_key=self.charge_key,
            **labels,
        )

    def check_elements(self, frames: AtomsFile, potential: Potential) -> None:
        """Raises ValueError where ``frames``, which are those of the files, hold elements that ``potential`` lacks."""
        known = potential.atomic_numbers.tolist()
        for number, frame in enumerate(frames):
            unknown = sorted(set(frame.z.tolist()) - set(known))
            if unknown:
                raise ValueError(
                    f"{self.OPTION}: {self._place(number)} holds {_symbols(unknown)} (atomic numbers {unknown}), which "
                    f"the potential does not know, it knows {_symbols(known)}: leave this frame out, or take a "
                    "potential that was trained on such atoms"
                )

    def _place(self, number: int) -> str:
        """The file and the frame in it of frame ``number`` of all; reads the files again."""
        for file in self.files:
            frames = len(self.single(file))
            if number < frames:
                return f"{file}: frame {number}"
            number -= frames
        raise IndexError(number)

    def single(self, file: Path) -> AtomsFile:
        """The structures of one of the files, without labels and neighbours."""
        return AtomsFile(file, labels=(), format=self.format)


@dataclass(frozen=True)
class DataFiles(StructureFiles):
    """Data: files of structures.

    Args:
        data: the files.
        format: ASE's name of their format, such as extxyz or vasp-xdatcar (default: told by name and content).
        num_workers: processes that look for neighbours; 0 does it in this one.
    """

    OPTION: ClassVar[str] = "data"
    HELP: ClassVar[str] = "files of molecules or crystals: extended XYZ, or any other that ASE reads"

    data: Sequence[Path] = ()


def _symbols(numbers: Iterable[int]) -> str:
    return ", ".join(chemical_symbols[number] for number in numbers)
