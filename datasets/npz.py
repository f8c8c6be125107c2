"""Energies and forces of one molecule from an npz file, checked."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HEAVIEST_ELEMENT = 118


@dataclass(frozen=True)
class Keys:
    """Under which names a family of files holds its arrays, and in which unit of energy."""

    z: str
    pos: str
    energy: str
    forces: str
    energy_unit: float  # in eV; forces are in this unit over Angstrom


@dataclass(frozen=True)
class Frames:
    """Geometries of one molecule: z (n,) int64, pos, forces (frames, n, 3), energy (frames,) float64; eV, Angstrom."""

    z: np.ndarray
    pos: np.ndarray
    energy: np.ndarray
    forces: np.ndarray


def read_frames(path: Path, keys: Keys, remark: str = "") -> Frames:
    """Reads the npz file ``path``; ``remark`` ends the error of a file that lacks an array.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a whole npz file, an array is missing, or one has a shape, type or value that cannot be.
    """
    names = (keys.z, keys.pos, keys.energy, keys.forces)
    arrays = read_arrays(Path(path), names, remark)
    z, pos, energy, forces = arrays.values()
    if energy.ndim == 2 and energy.shape[1] == 1:  # MD17 has a column of energies, rMD17 a list
        energy = energy[:, 0]

    def refuse(key: str, expected: str):
        raise ValueError(f"{path}: array '{key}' is {_described(arrays[key])}, expected {expected}")

    if z.ndim != 1 or len(z) == 0 or z.dtype.kind not in "iu":
        refuse(keys.z, "the atomic numbers (atoms,) as integers")
    if z.min() < 1 or z.max() > HEAVIEST_ELEMENT:
        refuse(keys.z, f"atomic numbers from 1 to {HEAVIEST_ELEMENT}")
    if pos.ndim != 3 or len(pos) == 0 or pos.shape[1:] != (len(z), 3) or pos.dtype.kind != "f":
        refuse(keys.pos, f"floating-point coordinates (frames, {len(z)}, 3), as many atoms as '{keys.z}' has")
    if energy.shape != (len(pos),) or energy.dtype.kind != "f":
        refuse(keys.energy, f"one floating-point energy for each frame of '{keys.pos}': ({len(pos)},)")
    if forces.shape != pos.shape or forces.dtype.kind != "f":
        refuse(keys.forces, f"a floating-point vector for each atom of '{keys.pos}': {pos.shape}")
    for key in (keys.pos, keys.energy, keys.forces):
        if not np.isfinite(arrays[key]).all():
            refuse(key, "finite numbers; it holds NaN or infinity")
    return Frames(
        z=z.astype(np.int64),
        pos=pos.astype(np.float64),
        energy=energy.astype(np.float64) * keys.energy_unit,
        forces=forces.astype(np.float64) * keys.energy_unit,
    )


def read_arrays(path: Path, names: tuple[str, ...], remark: str = "") -> dict[str, np.ndarray]:
    """The arrays ``names`` of the npz file ``path``; ``remark`` ends the error of a file that lacks one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a whole npz file, or an array is missing.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("a single array")
        with archive:
            missing = [name for name in names if name not in archive.files]
            found = archive.files
            arrays = {} if missing else {name: archive[name] for name in names}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError) as error:
        raise ValueError(
            f"{path}: not a whole npz file ({error}); it may be cut short: remove it and copy or download it again"
        ) from error
    if missing:
        raise ValueError(
            f"{path}: no array {', '.join(map(repr, missing))} among {found}; expected a file with {list(names)}"
            f"{remark}"
        )
    return arrays


def _described(array: np.ndarray) -> str:
    return f"{array.dtype} of shape {array.shape}"
