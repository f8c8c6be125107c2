"""The frames of a comparison as files that each code reads."""

from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np

from train.md17 import MD17Options, choose_frames

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class FrameFiles:
    """Files in extended XYZ, and the symbols of the elements in them."""

    name: str
    train: Path
    validation: Path
    test: Path
    symbols: tuple[str, ...]
    sizes: dict[str, int]


def write_frames(options: MD17Options, folder: Path) -> FrameFiles:
    """Writes the chosen frames, with energies counted from the mean of the training energies.

    In float32 a total energy of -4,210 eV is rounded to 0.5 meV. No code shall lose by that, and an energy of one
    molecule may be counted from anywhere.
    """
    dataset, name, indices = choose_frames(options)
    of_parts = {part: dataset[numbers].to_ase() for part, numbers in zip(PARTS, indices, strict=True)}
    mean = np.mean([atoms.get_potential_energy() for atoms in of_parts["train"]])
    files = {part: folder / f"{part}.xyz" for part in PARTS}
    for part, structures in of_parts.items():
        for atoms in structures:
            atoms.info.clear()
            atoms.calc.results["energy"] -= mean
        ase.io.write(files[part], structures, format="extxyz")
    symbols = sorted({symbol for atoms in of_parts["train"] for symbol in atoms.symbols})
    return FrameFiles(name, **files, symbols=tuple(symbols), sizes={part: len(of_parts[part]) for part in PARTS})
