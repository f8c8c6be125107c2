"""The published files of QM9: PyG's raw layout and those inside the package qm9pack."""

import csv
import importlib.util
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch_geometric.data import download_url, extract_zip
from torch_geometric.datasets import QM9 as PyGQM9

from datasets.qm9_targets import SPECIES, TARGETS

NUM_PUBLISHED, NUM_UNCHARACTERIZED = 133_885, 3_054
NUM_MOLECULES = NUM_PUBLISHED - NUM_UNCHARACTERIZED

RAW_FILES = ("gdb9.sdf", "gdb9.sdf.csv", "uncharacterized.txt")
UNCHARACTERIZED_HEADER = 9  # lines of uncharacterized.txt before its table

PACK_FILES = ("qm9_part1.csv", "qm9_part2.csv", "qm9_part3.csv")
# In the order of TARGETS.
SDF_COLUMNS = ("mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "u0", "u298", "h298", "g298", "cv")
PACK_COLUMNS = (
    "Dipole_debye", "Polarizability_bohr3", "HOMO_au", "LUMO_au", "HOMO_LUMO_gap_au", "R2_bohr2", "ZPVE_au",
    "InternalEnergy_0K_au", "InternalEnergy_298K_au", "Enthalphy_298K_au", "GibbsFreeEnergy_298K_au",
    "Heatcapacity_Cv_cal_mol_K",
)  # fmt: skip

NUMBER_OF_SYMBOL = dict(zip("HCNOF", SPECIES, strict=True))
PUBLISHED_UNITS = np.array([target.published_unit for target in TARGETS.values()])


@dataclass(frozen=True)
class Molecules:
    """A list of M molecules with N atoms in all.

    Args:
        number: (M,) int64, the molecule's number in GDB-9, from 1.
        num_atoms: (M,) int64.
        z: (N,) int64 atomic numbers, molecule after molecule.
        pos: (N, 3) float64, Angstrom.
        targets: (M, 12) float64, in the order and units of ``TARGETS``.
    """

    number: np.ndarray
    num_atoms: np.ndarray
    z: np.ndarray
    pos: np.ndarray
    targets: np.ndarray


def read_raw(folder: Path) -> Molecules:
    """Reads gdb9.sdf, gdb9.sdf.csv and uncharacterized.txt, and leaves out the molecules that the last one lists.

    Raises:
        ValueError: a file is cut short or foreign, or the three do not belong together.
    """
    sdf, table, uncharacterized = (folder / name for name in RAW_FILES)
    targets = _read_table(table)
    left_out = _read_uncharacterized(uncharacterized)
    number, structures = 0, []
    for number, (title, z, pos) in enumerate(_read_sdf(sdf), 1):
        if title != f"gdb_{number}":
            raise ValueError(f"{sdf}: molecule {number} is called {title!r}, expected gdb_{number}")
        if number not in left_out:
            structures.append((number, z, pos))
    if len(targets) != NUM_PUBLISHED or number != NUM_PUBLISHED:
        raise ValueError(
            f"{table} has {len(targets)} molecules and {sdf} {number}, expected {NUM_PUBLISHED} in both; a file may be "
            "cut short: copy or download it again"
        )
    return _molecules(structures, [targets[number - 1] for number, _, _ in structures])


def read_pack(folder: Path) -> Molecules:
    """Reads the data of qm9pack, which has the molecules that are left after the uncharacterized ones.

    Raises:
        ValueError: a file is cut short or foreign.
    """
    structures, targets = [], []
    for name in PACK_FILES:
        path = folder / name
        for (elements, pos), (number, *values) in _rows(path, ("Index", *PACK_COLUMNS), ("Elements", "XYZ_Ang")):
            symbols = [symbol.strip("[] '") for symbol in elements.split(",")]
            coordinates = pos.replace("[", "").replace("]", "").split(",")
            structures.append((int(number), *_checked_atoms(symbols, coordinates, f"{path}: molecule {number:.0f}")))
            targets.append(values)
    numbers = np.array([number for number, _, _ in structures])
    if len(numbers) != NUM_MOLECULES or not (np.diff(numbers) > 0).all():
        raise ValueError(
            f"{folder}: {len(numbers)} molecules in {', '.join(PACK_FILES)}, expected {NUM_MOLECULES} in ascending "
            "order; install qm9pack again"
        )
    return _molecules(structures, targets)


def find_pack() -> Path | None:
    """The data folder of qm9pack where it is installed, without importing it: it would import pandas."""
    found = importlib.util.find_spec("qm9pack")
    if found is None or not found.submodule_search_locations:
        return None
    return Path(next(iter(found.submodule_search_locations))) / "data"


def download_raw(folder: Path) -> None:
    """Downloads the raw files to ``folder`` from the addresses that PyG has.

    Raises:
        FileNotFoundError: that failed.
        ValueError: what came is no zip file.
    """
    try:
        archive = Path(download_url(PyGQM9.raw_url, str(folder)))
        extract_zip(str(archive), str(folder))
        archive.unlink()
        Path(download_url(PyGQM9.raw_url2, str(folder))).rename(folder / RAW_FILES[2])
    except zipfile.BadZipFile as error:
        raise ValueError(f"{folder}: what was downloaded is broken ({error}); remove it and try again") from error
    except OSError as error:  # no network, no such address, a folder that may not be written
        raise FileNotFoundError(
            f"{folder}: {', '.join(RAW_FILES)} are not there, and their download failed ({error}); give the folder of "
            "these files as `root`, or pip install qm9pack"
        ) from error


# === parsing ===


def _rows(path: Path, columns: tuple[str, ...], texts: tuple[str, ...]) -> Iterator[tuple[list[str], list[float]]]:
    """``texts`` and the numbers in ``columns`` of each row of a table."""
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(file)
        missing = [name for name in (*columns, *texts) if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{path}: no column {', '.join(missing)}; is this QM9's table?")
        for row in reader:
            try:
                values = [float(row[name]) for name in columns]
                if not np.isfinite(values).all():
                    raise ValueError("a number that is not finite")
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"{path}: line {reader.line_num} is not whole ({error}); the file may be cut short"
                ) from error
            yield [row[name] for name in texts], values
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        whole = file.read() == b"\n"
    if not whole:  # its last number may lack digits
        raise ValueError(f"{path}: the last line has no end; the file may be cut short")


def _read_table(path: Path) -> list[list[float]]:
    """The targets of molecule gdb_1, gdb_2 ..."""
    targets = []
    for number, ((title,), values) in enumerate(_rows(path, SDF_COLUMNS, texts=("mol_id",)), 1):
        if title != f"gdb_{number}":
            raise ValueError(f"{path}: row {number} is of mol_id {title!r}, expected gdb_{number}")
        targets.append(values)
    return targets


def _read_uncharacterized(path: Path) -> set[int]:
    """Numbers of the molecules whose geometry did not stay that of their formula when it was relaxed."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[UNCHARACTERIZED_HEADER:]
    first = [line.split()[0] for line in lines if line.strip()]
    numbers = {int(word) for word in first if word.isdecimal()}
    if len(numbers) != NUM_UNCHARACTERIZED or not numbers <= set(range(1, NUM_PUBLISHED + 1)):
        raise ValueError(
            f"{path}: lists {len(numbers)} molecules, expected {NUM_UNCHARACTERIZED} of {NUM_PUBLISHED}; the file may "
            "be cut short or another one"
        )
    return numbers


def _read_sdf(path: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Title, atomic numbers and positions of each molecule of an SDF file (V2000)."""
    with open(path, encoding="utf-8", errors="replace") as file:
        number = 0
        while title := file.readline():
            number += 1
            place = f"{path}: molecule {number}"
            block = []
            for line in file:
                if line.startswith("$$$$"):
                    break
                block.append(line)
            else:
                raise ValueError(f"{place} has no end ($$$$); the file may be cut short")
            counts = block[2] if len(block) > 2 else ""
            if not counts[:3].strip().isdecimal() or "V2000" not in counts:
                raise ValueError(f"{place} has the counts line {counts!r}, expected a molecule of format V2000")
            atoms = [line.split() for line in block[3 : 3 + int(counts[:3])]]
            if len(atoms) < int(counts[:3]) or any(len(atom) < 4 for atom in atoms):
                raise ValueError(f"{place} has fewer lines `x y z symbol` than its counts line {counts!r} says")
            z, pos = _checked_atoms([atom[3] for atom in atoms], [x for atom in atoms for x in atom[:3]], place)
            yield title.strip(), z, pos


def _checked_atoms(symbols: list[str], coordinates: list[str], place: str) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers (n,) and positions (n, 3)."""
    try:
        z = np.array([NUMBER_OF_SYMBOL[symbol] for symbol in symbols], dtype=np.int64)
        pos = np.array([float(x) for x in coordinates]).reshape(len(z), 3)
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{place} has atoms that cannot be read ({error}), expected {', '.join(NUMBER_OF_SYMBOL)} and three "
            "coordinates for each"
        ) from error
    return z, pos


def _molecules(structures: list[tuple[int, np.ndarray, np.ndarray]], targets: list[list[float]]) -> Molecules:
    numbers, z, pos = zip(*structures, strict=True)
    return Molecules(
        number=np.array(numbers),
        num_atoms=np.array([len(atoms) for atoms in z]),
        z=np.concatenate(z),
        pos=np.concatenate(pos),
        targets=np.array(targets) * PUBLISHED_UNITS,
    )
