"""Extended XYZ, or any other file that ASE reads, as a PyG dataset."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data
from tqdm import tqdm

from datasets.npz import HEAVIEST_ELEMENT
from datasets.structure_dataset import StructureDataset

LABELS = ("energy", "forces", "stress")
# Relative to the largest component: a file that prints four digits is symmetric within this.
STRESS_ASYMMETRY = 1e-3
# Part of every cache file's name: raise it whenever the same file would be read as other frames.
READER_VERSION = 1
SECONDS_BEFORE_A_BAR = 10


class AtomsFile(StructureDataset):
    r"""Molecules and crystals of any composition from the files that :func:`ase.io.read` understands.

    An item is a :class:`~torch_geometric.data.Data` with

    - ``z`` (n,) int64, atomic numbers,
    - ``pos`` (n, 3) float64, Angstrom,
    - ``energy`` (1,) float64, eV,
    - ``forces`` (n, 3) float64, eV/Angstrom, those on fixed atoms included,
    - ``stress`` (1, 3, 3) float64, eV/Angstrom^3, symmetric, where the files have it. The sign is ASE's and that of
      :class:`pyg_cgconv.Potential`: positive where the structure wants to shrink,
    - ``cell`` (1, 3, 3) float64, lattice vectors as rows, Angstrom, and ``pbc`` (1, 3) bool, if any frame is periodic.
      Every frame has them then, so that PyG can batch all: a molecule with ``pbc`` False.

    Files come in the order given, frames in the order of their file. Nothing is converted but the layout of the stress:
    custom keys must already be in these units and, for the stress, of this sign. Energies stay float64, see
    :class:`FrameDataset`. There are no edges: pass ``pre_transform=pyg_cgconv.neighbors.RadiusGraph(cutoff)``.

    Args:
        files: A path or a list of paths.
        cache: A folder in which the frames are kept for the next time, as in :class:`StructureDataset`; without it
            nothing is written to disk.
        labels: Those of ``"energy"``, ``"forces"`` and ``"stress"`` that items hold and every frame must have. By
            default energy and forces, and the stress if any frame has it or ``stress_key`` is given.
        energy_key, forces_key, stress_key: The names of the labels in ``Atoms.info`` or ``Atoms.arrays``, such as
            ``"REF_energy"``, or else among the calculator's results, such as ``"free_energy"``. By default the
            calculator's energy, forces and stress. A stress has 6 components in Voigt order (xx, yy, zz, yz, xz, xy),
            or 9.
        format: ASE's name of the format, for files whose name does not tell it.
        transform, pre_transform, pre_filter, num_workers: As in :class:`StructureDataset`.

    Raises:
        ImportError: ASE is not installed.
        FileNotFoundError: there is no such file.
        ValueError: a file is cut short, foreign or without frames; a frame lacks a label or holds values that cannot
            be; with ``cache``, ``pre_transform`` or ``pre_filter`` is a function, which cannot be told from another.
    """

    def __init__(
        self,
        files: str | Path | Sequence[str | Path],
        cache: str | Path | None = None,
        labels: Sequence[str] | None = None,
        energy_key: str | None = None,
        forces_key: str | None = None,
        stress_key: str | None = None,
        format: str | None = None,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        num_workers: int = 0,
    ):
        ase = _import_ase()
        self.files = _checked_files(files)
        keys = dict(zip(LABELS, (energy_key, forces_key, stress_key), strict=True))
        labels = _checked_labels(labels, keys)
        super().__init__(
            lambda: self.collate(_read_frames(self.files, format, labels, keys)),
            self.files,
            (READER_VERSION, ase.__version__, labels, keys, format),
            transform,
            pre_transform,
            pre_filter,
            cache,
            num_workers,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({[str(path) for path in self.files]}, frames={len(self)})"


# === arguments ===


def _import_ase():
    try:
        import ase.io
    except ImportError as error:
        raise ImportError(
            f"AtomsFile reads through ASE, which cannot be imported ({error}): pip install ase"
        ) from error
    return ase


def _checked_files(files) -> list[Path]:
    if isinstance(files, str | os.PathLike):
        files = [files]
    if not isinstance(files, Sequence) or not files:
        raise ValueError(
            f"files: expected a path or a list of paths, got {files!r}; a set or a glob has no order: sort it"
        )
    paths = [Path(file).expanduser() for file in files]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
    return paths


def _checked_labels(labels, keys: dict[str, str | None]) -> tuple[str, ...] | None:
    """The labels that every frame must have; None for energy and forces, with the stress if any frame has it."""
    if keys["stress"] is not None and "virial" in keys["stress"].lower():
        raise ValueError(
            f"stress_key: {keys['stress']!r} sounds like a virial, in eV; expected a stress, in eV/Angstrom^3: "
            "divide by minus the volume"
        )
    if labels is None:
        return LABELS if keys["stress"] is not None else None
    if isinstance(labels, str) or not set(labels) <= set(LABELS):
        raise ValueError(f"labels: expected a list of some of {LABELS}, got {labels!r}")
    for name, key in keys.items():
        if key is not None and name not in labels:
            raise ValueError(f"{name}_key: got {key!r}, but labels={labels!r} leaves the {name} out; name it there")
    return tuple(name for name in LABELS if name in labels)


# === reading ===


def _read_frames(paths: list[Path], format: str | None, labels, keys: dict[str, str | None]) -> list[Data]:
    """The frames of all files, alike in what they hold."""
    frames, places = [], []
    for path in paths:
        for number, atoms in enumerate(_read_atoms(path, format)):
            places.append(f"{path}: frame {number}")
            frames.append(_frame(atoms, places[-1], labels, keys))
    if labels is None and any("stress" in frame for frame in frames):
        for frame, place in zip(frames, places, strict=True):
            if "stress" not in frame:
                raise ValueError(
                    f"{place} has no stress, but others have; leave it out with labels=('energy', 'forces'), or read "
                    "these frames on their own"
                )
    if not any(frame.pbc.any() for frame in frames):
        for frame in frames:
            del frame.cell, frame.pbc
    return frames


def _read_atoms(path: Path, format: str | None) -> Iterator:
    """The ase.Atoms of one file."""
    ase = _import_ase()
    num_frames = num_lines = 0
    try:
        format = format or ase.io.formats.filetype(str(path))
        # A name may hold an @, and under MPI every process reads for itself.
        images = ase.io.iread(str(path), ":", format, parallel=False, do_not_split_by_at_sign=True)
        for atoms in tqdm(images, path.name, unit=" frames", delay=SECONDS_BEFORE_A_BAR):
            num_frames += 1
            num_lines += 2 + len(atoms)
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


def _frame(atoms, place: str, labels, keys: dict[str, str | None]) -> Data:
    """One item, with cell and pbc whether periodic or not. ``place`` begins every error message."""
    z, pos, cell, pbc = atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc
    if len(z) == 0 or z.min() < 1 or z.max() > HEAVIEST_ELEMENT:
        raise ValueError(f"{place} has the atomic numbers {sorted(set(z.tolist()))}, expected 1 to {HEAVIEST_ELEMENT}")
    if not (np.isfinite(pos).all() and np.isfinite(cell).all()):
        raise ValueError(f"{place} has positions or a cell that are not finite")
    if np.linalg.matrix_rank(cell[pbc]) < pbc.sum():
        raise ValueError(
            f"{place} is periodic, pbc={pbc.tolist()}, in directions whose lattice vectors span nothing: "
            f'{cell.tolist()}; give the cell or write pbc="F F F"'
        )
    data = Data(z=torch.tensor(z, dtype=torch.int64), pos=torch.tensor(pos))
    for name in LABELS if labels is None else labels:
        value = _label(atoms, name, keys[name])
        if value is not None:
            data[name] = torch.tensor(_checked_label(value, name, len(z), place))
        elif labels is not None or name != "stress":
            raise ValueError(f"{place} has no {_called(name, keys[name])}; {_what_there_is(atoms, name)}")
    data.cell, data.pbc = torch.tensor(cell)[None], torch.tensor(pbc)[None]
    return data


def _label(atoms, name: str, key: str | None):
    """What the frame holds under ``key``, or None."""
    if key is None:
        return _results(atoms).get(name)
    return next((held[key] for held in (atoms.info, atoms.arrays, _results(atoms)) if key in held), None)


def _results(atoms) -> dict:
    # Not get_forces(), which would set the forces on fixed atoms to zero.
    return {} if atoms.calc is None else atoms.calc.results


def _called(name: str, key: str | None) -> str:
    return name if key is None else f"{name} {key!r}"


def _what_there_is(atoms, name: str) -> str:
    return (
        f"there are calculator results {sorted(_results(atoms))}, info {sorted(atoms.info)} and arrays "
        f"{sorted(atoms.arrays)}: give one as `{name}_key`, or leave {name} out of `labels`"
    )


def _checked_label(value, name: str, num_atoms: int, place: str) -> np.ndarray:
    """Energy (1,), forces (n, 3) or stress (1, 3, 3) in float64."""
    shapes_of: dict[str, list[tuple[int, ...]]] = {
        "energy": [(), (1,)],
        "forces": [(num_atoms, 3)],
        "stress": [(6,), (9,), (3, 3)],
    }
    shapes, given = shapes_of[name], np.asarray(value)
    if given.shape not in shapes or given.dtype.kind not in "iuf":
        raise ValueError(
            f"{place}: {name} of {given.dtype} and shape {given.shape}, expected numbers of shape "
            f"{' or '.join(map(str, shapes))}"
        )
    if not np.isfinite(given).all():
        raise ValueError(f"{place}: {name} not finite")
    given = given.astype(np.float64)
    if name == "stress":
        return _stress_tensor(given, place)
    return given.reshape(1) if name == "energy" else given


def _stress_tensor(given: np.ndarray, place: str) -> np.ndarray:
    """(1, 3, 3), from Voigt's order if there are 6 components."""
    if given.shape == (6,):
        xx, yy, zz, yz, xz, xy = given
        return np.array([[[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]])
    stress = given.reshape(3, 3)
    if np.abs(stress - stress.T).max() > STRESS_ASYMMETRY * np.abs(stress).max():
        raise ValueError(f"{place} has a stress that is not symmetric: {stress.tolist()}")
    return (stress + stress.T)[None] / 2
