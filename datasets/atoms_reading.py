"""The frames of one file, by ASE, one after the other."""

import warnings
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from datasets.atoms_stress import take_full_stress, with_full_stress

SECONDS_BEFORE_A_BAR = 10


def import_ase_io():
    """The package ``ase`` with ``ase.io``. Raises ImportError where it is not installed."""
    try:
        import ase.io
    except ImportError as error:
        raise ImportError(
            f"AtomsFile reads through ASE, which cannot be imported ({error}): pip install ase"
        ) from error
    return ase


def read_atoms(path: Path, format: str | None) -> Iterator:
    """The ase.Atoms of one file.

    Raises:
        ValueError: it is cut short, foreign or without frames.
    """
    ase = import_ase_io()
    num_frames = num_lines = 0
    try:
        format = format or ase.io.formats.filetype(str(path))
        # A name may hold an @, and under MPI every process reads for itself.
        options = {"properties_parser": _properties} if format == "extxyz" else {}
        images = ase.io.iread(str(path), ":", format, parallel=False, do_not_split_by_at_sign=True, **options)
        for atoms in tqdm(images, path.name, unit=" frames", delay=SECONDS_BEFORE_A_BAR):
            num_frames += 1
            num_lines += 2 + len(atoms)
            take_full_stress(atoms)
            yield atoms
    except (ImportError, MemoryError, PermissionError):
        raise
    except Exception as error:  # each of ASE's readers has its own
        raise ValueError(
            f"{path}: ASE cannot read frame {num_frames} ({type(error).__name__}: {error}); the file may be cut short "
            "or of another format: copy it again, or name its `format`"
        ) from error
    if not num_frames:
        raise ValueError(f"{path}: no frames in it")
    if format == "extxyz":
        _check_whole(path, num_frames, num_lines)


def _properties(line: str) -> dict:
    """What the second line of an extended XYZ says of its frame."""
    from ase.io.extxyz import key_val_str_to_dict

    return with_full_stress(key_val_str_to_dict(line))


def _check_whole(path: Path, num_frames: int, num_lines: int):
    """Refuses an extended XYZ of which ASE read only a part: it stops at a blank line without a word."""
    from ase.io.formats import open_with_compression

    present, last = 0, ""
    with open_with_compression(str(path), "r") as file:
        for number, line in enumerate(file, 1):
            num_lines += line.lstrip().startswith("VEC")  # lattice vectors after the atoms, one way to give a cell
            if line.strip():
                present, last = number, line
    if present > num_lines:
        raise ValueError(
            f"{path}: {num_frames} frames end at line {num_lines}, but there are {present} lines; remove blank lines "
            "between frames"
        )
    if not last.endswith("\n"):
        warnings.warn(f"{path}: the last line has no end, so its last number may be cut short", stacklevel=2)
