"""Extended XYZ, or any other file that ASE reads, as a PyG dataset."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data
from tqdm import tqdm

from datasets.atoms_details import add_details
from datasets.atoms_labels import LABELS, MOMENTS, charge_of, checked_labels, read_labels
from datasets.atoms_stress import STRESS_KEYS, take_full_stress, unread_names, with_full_stress
from datasets.label_names import by_keys, item_shape, to_leave_out
from datasets.npz import HEAVIEST_ELEMENT
from datasets.structure_dataset import StructureDataset

# Part of every cache file's name: raise it whenever the same file would be read as other frames.
READER_VERSION = 4
SECONDS_BEFORE_A_BAR = 10


class AtomsFile(StructureDataset):
    r"""Molecules and crystals of any composition from the files that :func:`ase.io.read` understands.

    An item is a :class:`~torch_geometric.data.Data` with

    - ``z`` (n,) int64, atomic numbers,
    - ``pos`` (n, 3) float64, Angstrom,
    - ``energy`` (1,) float64, eV,
    - ``forces`` (n, 3) float64, eV/Angstrom, those on fixed atoms included. A frame of a single atom may lack them, and
      holds zero then,
    - ``stress`` (1, 3, 3) float64, eV/Angstrom^3, symmetric, where the files have it or a virial :math:`W`, of which it
      is :math:`-W / V`. The sign is ASE's and that of :class:`pyg_cgconv.Potential`: positive where the structure wants
      to shrink,
    - of ``labels`` that are asked for, ``energies`` (n,), those of atoms in eV, ``charges`` (n,), those of atoms in e,
      and ``dipole`` (1, 3) in e Angstrom, of molecules, about the centre of mass, all float64,
    - ``charge`` (1,) float64, the total charge in e, if any frame has it; 0 of those without,
    - ``cell`` (1, 3, 3) float64, lattice vectors as rows, Angstrom, and ``pbc`` (1, 3) bool, if any frame is periodic.
      Every frame has them then, so that PyG can batch all: a molecule with ``pbc`` False.

    Frames may have different labels: one that a frame lacks and others have is NaN there.

    Files come in the order given, frames in the order of their file. Nothing is converted but a virial and the layout
    of a stress: custom keys must already be in these units and, for the stress, of this sign. Energies stay float64,
    see :class:`FrameDataset`. There are no edges: pass ``pre_transform=pyg_cgconv.neighbors.RadiusGraph(cutoff)``.

    Args:
        files: A path or a list of paths.
        cache: A folder in which the frames are kept for the next time, as in :class:`StructureDataset`; without it
            nothing is written to disk.
        labels: Those of ``"energy"``, ``"forces"``, ``"stress"``, ``"energies"``, ``"charges"`` and ``"dipole"`` that
            items hold. Of each there must be a frame that has it. By default energy and forces, and the stress if any
            frame has it or ``stress_key`` is given.
        energy_key, forces_key, stress_key: The names of the labels in ``Atoms.info`` or ``Atoms.arrays``, such as
            ``"REF_energy"``, or else among the calculator's results, such as ``"free_energy"``. By default the
            calculator's energy, forces and stress. A stress has 6 components in Voigt order (xx, yy, zz, yz, xz, xy),
            or 9.
        virial_key: The name of the virial, eV, from which the stress is taken. By default ``virial`` or ``virials``.
            Layouts are those of the stress. It is positive where the structure wants to grow.
        format: ASE's name of the format, for files whose name does not tell it.
        details: Whether items also hold what the files say of how much a frame counts, and where it comes from:
            ``weight`` (1, 6) float64, of the labels in the order above, ``config_weight`` times
            ``config_energy_weight``, ``config_forces_weight``, ``config_stress_weight`` (or ``config_virials_weight``),
            ``config_energies_weight``, ``config_charges_weight`` and ``config_dipole_weight``, each 1 if it is not
            there; ``config_type`` uint8, the bytes of the name, "Default" without one, of which
            ``bytes(data.config_type.tolist()).decode()`` makes it again; ``head_name`` uint8, likewise, the name of its
            level of theory, ``head`` in the file; ``constrained`` (1,) bool, whether atoms are held fixed; ``source``
            (1, 2) int64, the file among ``files`` and the frame in it.
        energies_key, charges_key, dipole_key: Likewise names of these labels. By default the calculator's.
        charge_key: The name of the total charge in ``Atoms.info``.
        transform, pre_transform, pre_filter, num_workers: As in :class:`StructureDataset`.

    Raises:
        ImportError: ASE is not installed.
        FileNotFoundError: there is no such file.
        ValueError: a file is cut short, foreign or without frames; no frame has a label; a frame holds values that
            cannot be, or has a label under two names with different values, of which no key chooses one, or only under
            a name such as ``REF_energy`` that no key gives; with ``cache``, ``pre_transform`` or ``pre_filter`` is a
            function, which cannot be told from another.
    """

    def __init__(
        self,
        files: str | Path | Sequence[str | Path],
        cache: str | Path | None = None,
        labels: Sequence[str] | None = None,
        energy_key: str | None = None,
        forces_key: str | None = None,
        stress_key: str | None = None,
        virial_key: str | None = None,
        format: str | None = None,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        num_workers: int = 0,
        details: bool = False,
        energies_key: str | None = None,
        charges_key: str | None = None,
        dipole_key: str | None = None,
        charge_key: str = "charge",
    ):
        ase = _import_ase()
        self.files = _checked_files(files)
        keys = {"energy": energy_key, "forces": forces_key, "stress": stress_key, "virial": virial_key}
        keys |= {"energies": energies_key, "charges": charges_key, "dipole": dipole_key}
        labels = checked_labels(labels, keys)
        super().__init__(
            lambda: self.collate(_read_frames(self.files, format, labels, keys, details, charge_key)),
            self.files,
            (READER_VERSION, ase.__version__, labels, keys, format, details, charge_key),
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


# === reading ===


def _read_frames(
    paths: list[Path], format: str | None, labels, keys: dict[str, str | None], details: bool, charge_key: str
) -> list[Data]:
    """The frames of all files, alike in what they hold."""
    frames: list[Data] = []
    missing: dict[str, str] = {}
    unread: dict[str, Path] = {}
    for file, path in enumerate(paths):
        for number, atoms in enumerate(read_atoms(path, format)):
            place = f"{path}: frame {number}"
            found, lacking = read_labels(atoms, labels, keys, place)
            frames.append(_frame(atoms, place, found))
            missing = lacking | missing
            charge = charge_of(atoms, charge_key, bool(set(MOMENTS) & set(labels or ())), place)
            if charge is not None:
                frames[-1].charge = torch.tensor([charge], dtype=torch.float64)
            if details:
                add_details(frames[-1], atoms, place, file, number)
            if labels is None and "stress" not in found:
                unread |= dict.fromkeys(unread_names(atoms), path)
    if unread:
        warnings.warn(
            f"{', '.join(sorted({path.name for path in unread.values()}))}: no stress is read, but there is "
            f"{', '.join(sorted(unread))}: name it by {by_keys(*STRESS_KEYS)}, or {to_leave_out('stress')}",
            stacklevel=2,
        )
    _complete_labels(frames, missing)
    if not any(frame.pbc.any() for frame in frames):
        for frame in frames:
            del frame.cell, frame.pbc
    return frames


def _complete_labels(frames: list[Data], missing: dict[str, str]) -> None:
    """Gives all frames the labels that any of them has, in place: NaN where there is none.

    Args:
        missing: of labels that must be somewhere what to say if they are nowhere. Forces and stresses of single atoms
            are none that others could be compared with.

    Raises:
        ValueError: no frame has such a label.
    """
    several = [frame for frame in frames if frame.num_nodes > 1]
    for name, complaint in missing.items():
        asked = several if name in ("forces", "stress") else frames
        if asked and not any(name in frame for frame in asked):
            raise ValueError(complaint)
    for name in LABELS:
        if name in missing or any(name in frame for frame in frames):
            for frame in frames:
                if name not in frame:
                    frame[name] = torch.full(item_shape(name, frame.num_nodes), torch.nan, dtype=torch.float64)
    if any("charge" in frame for frame in frames):
        for frame in frames:
            frame.charge = frame.charge if "charge" in frame else torch.zeros(1, dtype=torch.float64)


def read_atoms(path: Path, format: str | None) -> Iterator:
    """The ase.Atoms of one file.

    Raises:
        ValueError: it is cut short, foreign or without frames.
    """
    ase = _import_ase()
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


def _frame(atoms, place: str, labels: dict[str, np.ndarray]) -> Data:
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
    for name, value in labels.items():
        data[name] = torch.tensor(value)
    data.cell, data.pbc = torch.tensor(cell)[None], torch.tensor(pbc)[None]
    return data
