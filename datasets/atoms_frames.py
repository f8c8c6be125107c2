"""The frames of files that ASE reads, made alike and joined while they are read: few are in memory at a time."""

import warnings
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch_geometric.data import Data

from datasets.atoms_details import add_details
from datasets.atoms_labels import LABELS, MOMENTS, USUAL_LABELS, charge_of, read_labels
from datasets.atoms_reading import read_atoms
from datasets.atoms_stress import STRESS_KEYS, unread_names
from datasets.joined import FRAMES_IN_A_PART, Part, joined, packed
from datasets.label_names import by_keys, item_shape, to_leave_out
from datasets.npz import HEAVIEST_ELEMENT

PERIODIC = ("cell", "pbc")
CHARGE = "charge"


class AtomsFrames:
    """Frames of ``files``, one after the other, and what was found in any of them.

    Each has all that any may have: a label that is missing is NaN. What no frame has is dropped at the end.

    Args:
        files, format, details, charge_key: as in :class:`datasets.AtomsFile`.
        labels: as :func:`datasets.atoms_labels.checked_labels` gives them.
        keys: of each label and of the virial, the name in the files, or None.
    """

    def __init__(
        self,
        files: Sequence[Path],
        format: str | None,
        labels: tuple[str, ...] | None,
        keys: dict[str, str | None],
        details: bool,
        charge_key: str,
    ):
        self.files, self.format, self.labels, self.keys = files, format, labels, keys
        self.details, self.charge_key = details, charge_key
        self._found: set[str] = set()  # of labels, cell and charge, those that any frame has
        self._found_in_several: set[str] = set()  # those that a frame of several atoms has
        self._several = False  # whether there is one
        self._missing: dict[str, str] = {}
        self._unread: dict[str, Path] = {}

    def read(self, folder: Path | None) -> Part:
        """All frames in one, as :func:`datasets.joined.joined` makes it, in ``folder`` if it is not None.

        Raises:
            ValueError: see :class:`datasets.AtomsFile`.
        """
        data, begins = cast(Part, joined(self._parts(), folder))  # files without frames are refused
        if self._unread:
            warnings.warn(
                f"{', '.join(sorted({path.name for path in self._unread.values()}))}: no stress is read, but there is "
                f"{', '.join(sorted(self._unread))}: name it by {by_keys(*STRESS_KEYS)}, or {to_leave_out('stress')}",
                stacklevel=2,
            )
        self._check_labels()
        absent = {*LABELS, *PERIODIC, CHARGE} - self._found - set(self._missing)
        for name in absent & set(data.keys()):
            del data[name], begins[name]
        return data, begins

    def _check_labels(self) -> None:
        """Raises ValueError where no frame has a label that must be somewhere: of single atoms, forces and stresses are
        none that others could be compared with."""
        for name, complaint in self._missing.items():
            if name in ("forces", "stress"):
                there = name in self._found_in_several or not self._several
            else:
                there = name in self._found
            if not there:
                raise ValueError(complaint)

    def _parts(self) -> Iterator[Part]:
        frames = self._frames()
        while several := list(islice(frames, FRAMES_IN_A_PART)):
            yield packed(several)

    def _frames(self) -> Iterator[Data]:
        for file, path in enumerate(self.files):
            for number, atoms in enumerate(read_atoms(path, self.format)):
                place = f"{path}: frame {number}"
                labels, lacking = read_labels(atoms, self.labels, self.keys, place)
                frame = _structure(atoms, place)
                self._complete_labels(frame, labels)
                self._missing = lacking | self._missing
                self._add_charge(frame, atoms, place)
                if self.details:
                    add_details(frame, atoms, place, file, number)
                if self.labels is None and "stress" not in labels:
                    self._unread |= dict.fromkeys(unread_names(atoms), path)
                if atoms.pbc.any():
                    self._found |= set(PERIODIC)
                yield frame

    def _complete_labels(self, frame: Data, labels: dict[str, np.ndarray]) -> None:
        several = frame.num_nodes > 1
        self._found |= set(labels)
        self._several |= several
        self._found_in_several |= set(labels) if several else set()
        for name in USUAL_LABELS if self.labels is None else self.labels:
            missing = torch.full(item_shape(name, frame.num_nodes), torch.nan, dtype=torch.float64)
            frame[name] = torch.tensor(labels[name]) if name in labels else missing

    def _add_charge(self, frame: Data, atoms, place: str) -> None:
        needed = bool(set(MOMENTS) & set(self.labels or ()))
        charge = charge_of(atoms, self.charge_key, needed, place)
        if charge is not None:
            self._found.add(CHARGE)
        frame[CHARGE] = torch.tensor([charge or 0.0], dtype=torch.float64)


def _structure(atoms, place: str) -> Data:
    """Elements, positions, cell and pbc, whether periodic or not. ``place`` begins every error message."""
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
    data.cell, data.pbc = torch.tensor(cell)[None], torch.tensor(pbc)[None]
    return data
