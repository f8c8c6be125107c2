"""The molecules of QM9 that come with the project, as integers: values times ten to their published decimals."""

from pathlib import Path

import numpy as np

from datasets.npz import read_arrays
from datasets.qm9_files import PUBLISHED_UNITS, Molecules
from datasets.qm9_targets import TARGETS

SAMPLE = Path(__file__).parent / "data" / "qm9-sample.npz"

POSITION_UNIT = 1e-4  # Angstrom: as many decimals as gdb9.sdf has
TARGET_UNITS = 10.0 ** -np.array([target.decimals for target in TARGETS.values()])
NAMES = ("number", "num_atoms", "z", "positions", "targets")


def write_sample(path: Path, molecules: Molecules) -> None:
    """Writes ``molecules`` to an npz file."""
    np.savez_compressed(
        path,
        number=molecules.number.astype(np.int32),
        num_atoms=molecules.num_atoms.astype(np.uint8),
        z=molecules.z.astype(np.uint8),
        # Values of a kind side by side take less room.
        positions=np.round(molecules.pos / POSITION_UNIT).astype(np.int32).T.copy(),
        targets=np.round(molecules.targets / (PUBLISHED_UNITS * TARGET_UNITS)).astype(np.int32).T.copy(),
    )


def read_sample(path: Path) -> Molecules:
    """Reads what :func:`write_sample` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a whole npz file of these arrays.
    """
    number, num_atoms, z, positions, targets = (array for array in read_arrays(path, NAMES).values())
    shapes = {"z": z.shape, "positions": positions.shape, "targets": targets.shape}
    total = int(num_atoms.sum())
    expected = {"z": (total,), "positions": (3, total), "targets": (len(TARGETS), len(number))}
    if shapes != expected or num_atoms.shape != number.shape:
        raise ValueError(f"{path}: arrays of shapes {shapes}, expected {expected}")
    return Molecules(
        number=number.astype(np.int64),
        num_atoms=num_atoms.astype(np.int64),
        z=z.astype(np.int64),
        pos=np.ascontiguousarray(positions.T) * POSITION_UNIT,
        targets=np.ascontiguousarray(targets.T) * TARGET_UNITS * PUBLISHED_UNITS,
    )
