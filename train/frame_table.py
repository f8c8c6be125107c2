"""Frames whose values lie in columns, in memory or mapped from a cache: a frame is made when it is looked at.

A list of frames would have objects of 11 kB for each of them, however small it is.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import torch
from ase.geometry import complete_cell
from torch import Tensor
from torch_geometric.data import Batch, Data

from datasets import StructureDataset

# Frames that are looked at together, so that few are in memory.
BLOCK = 4096
# Objects of so many frames of a cache, or fewer, are kept: they take 10 MB at most, and are made once.
FEW_FRAMES = 1000


class FrameColumns:
    """All frames of a data set, and what a training adds to them. Rows are their numbers in the data set.

    Args:
        dataset: of :class:`datasets.AtomsFile` with neighbour lists and ``details``.
        files: those of the data set.

    Attributes:
        given: values (rows, ...) by name, of which a frame has its row (1, ...).
        texts: codes (rows,) and what each stands for, by name.
        without_label: rows (rows,) whose label of this name is NaN, whatever the data set says.
        without_volume: rows (rows,) whose cell is completed, see :func:`ase.geometry.complete_cell`.
        left_out: names of the data set that frames do not have.
    """

    def __init__(self, dataset: StructureDataset, files: Sequence[Path]):
        whole, begins = dataset.columns()
        self.count = dataset.len()
        self.values: dict[str, Tensor] = whole.to_dict()
        self.begins = {name: begin.numpy() for name, begin in begins.items()}
        self.axes = {name: whole.__cat_dim__(name, value) or 0 for name, value in self.values.items()}
        self.given: dict[str, Tensor] = {}
        self.texts: dict[str, tuple[np.ndarray, list[str]]] = {}
        self.without_label: dict[str, np.ndarray] = {}
        self.without_volume: np.ndarray | None = None
        self.files = files
        self._present: dict[str, np.ndarray] = {}
        kept = not dataset.is_mapped or self.count <= FEW_FRAMES
        self._kept: dict[int, Data] | None = {} if kept else None
        self.texts["config_type"] = self.text_codes("config_type")
        self.left_out = {"source", "constrained", "config_type"}

    def names(self) -> list[str]:
        """Of the attributes that are tensors."""
        return [name for name in dict.fromkeys((*self.values, *self.given)) if name not in self.left_out]

    def sizes(self, name: str, rows: np.ndarray) -> np.ndarray:
        """How many entries of ``name``, such as atoms of ``pos``, the frames with these ``rows`` have."""
        begins = self.begins[name]
        return begins[rows + 1] - begins[rows]

    def value(self, name: str, row: int) -> Tensor:
        """That of one frame; what is not changed is a view."""
        if name in self.given:
            return self.given[name][row : row + 1]
        begins = self.begins[name]
        value = self.values[name].narrow(self.axes[name], int(begins[row]), int(begins[row + 1] - begins[row]))
        if name in self.without_label and self.without_label[name][row]:
            return torch.full_like(value, torch.nan)
        if name == "cell" and self.without_volume is not None and self.without_volume[row]:
            return completed(value)
        return value

    def values_of(self, name: str, rows: np.ndarray) -> Tensor:
        """Those of many frames, one after the other."""
        if name in self.given:
            return self.given[name][torch.from_numpy(rows)]
        first, counts = self.begins[name][rows], self.sizes(name, rows)
        ends = counts.cumsum()
        entries = np.repeat(first - (ends - counts), counts) + np.arange(ends[-1] if len(ends) else 0)
        values = self.values[name].index_select(self.axes[name], torch.from_numpy(entries))
        if name in self.without_label:
            values[torch.from_numpy(np.repeat(self.without_label[name][rows], counts))] = torch.nan
        if name == "cell" and self.without_volume is not None and self.without_volume[rows].any():
            flat = torch.from_numpy(self.without_volume[rows])
            values[flat] = completed(values[flat])
        return values

    def frame(self, row: int) -> Data:
        if self._kept is not None and row in self._kept:
            return self._kept[row]
        values = {name: self.value(name, row) for name in self.names()}
        texts = {name: texts[codes[row]] for name, (codes, texts) in self.texts.items()}
        frame = Data.from_dict({**values, **texts, "place": self.place(row)})
        if self._kept is not None:
            self._kept[row] = frame
        return frame

    def present(self, name: str) -> np.ndarray:
        """Whether each frame (rows,) has the label ``name``: not all of it is NaN."""
        if name not in self.values:
            return np.zeros(self.count, bool)
        if name not in self._present:
            self._present[name] = np.concatenate([self._known(name, *ends) for ends in _ends(self.count)])
        return self._present[name] & ~self.without_label.get(name, np.zeros((), bool))

    def _known(self, name: str, first: int, end: int) -> np.ndarray:
        begins = self.begins[name][first : end + 1]
        values = self.values[name][int(begins[0]) : int(begins[-1])]
        known = ~values.isnan().reshape(len(values), -1).all(dim=1).numpy()
        return np.logical_or.reduceat(known, begins[:-1] - begins[0])

    def text_codes(self, name: str) -> tuple[np.ndarray, list[str]]:
        """The texts of attribute ``name``, which are kept as bytes, and which of them each frame (rows,) has."""
        values, begins = self.values[name].numpy(), self.begins[name]
        known: dict[bytes, int] = {}
        codes = np.empty(self.count, np.int32)
        for row in range(self.count):
            codes[row] = known.setdefault(values[begins[row] : begins[row + 1]].tobytes(), len(known))
        return codes, [text.decode() for text in known]

    def complete_cells(self, rows: np.ndarray) -> None:
        """From now on a cell that spans no volume is completed; see :func:`train.data.made_alike`.

        Raises:
            ValueError: one of the frames with these ``rows`` has a stress but no volume.
        """
        if "cell" not in self.values:
            return
        cells = self.values["cell"]
        flat = np.concatenate([(torch.linalg.det(cells[first:end]) == 0).numpy() for first, end in _ends(self.count)])
        odd = rows[(flat & self.present("stress"))[rows]]
        if len(odd):
            raise ValueError(
                f"stress of {self.place(int(odd[0]))}: its cell {cells[odd[0]].tolist()} has no volume; leave it out"
            )
        self.without_volume = flat if flat.any() else None

    def place(self, row: int) -> str:
        file, number = self.values["source"][row].tolist()
        return place_in(self.files[file], number)


class FrameTable(Sequence[Data]):
    """Some frames of ``columns``, those with these ``rows`` (frames,) int64, each made when it is looked at.

    What is written to a frame may be lost.
    """

    def __init__(self, columns: FrameColumns, rows: np.ndarray):
        self.columns, self.rows = columns, rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, which: int) -> Data: ...
    @overload
    def __getitem__(self, which: slice | np.ndarray) -> "FrameTable": ...
    def __getitem__(self, which):
        if isinstance(which, slice | np.ndarray):
            return FrameTable(self.columns, self.rows[which])
        return self.columns.frame(int(self.rows[which]))

    def __getitems__(self, numbers: Sequence[int]) -> Batch:
        """The batch that PyG would make of the frames with these ``numbers``, but for text: what a loader asks for."""
        rows = self.rows[np.asarray(numbers)]
        atoms, edges = (torch.from_numpy(self.columns.sizes(name, rows)) for name in ("pos", "edge_index"))
        ptr = torch.cat([atoms.new_zeros(1), atoms.cumsum(0)])
        values = {name: self.columns.values_of(name, rows) for name in self.columns.names()}
        values["edge_index"] += ptr[:-1].repeat_interleave(edges)
        return Batch(batch=torch.arange(len(rows)).repeat_interleave(atoms), ptr=ptr, **values)

    def __add__(self, other: "FrameTable") -> "FrameTable":
        """Both, one after the other."""
        return FrameTable(self.columns, np.concatenate([self.rows, other.rows]))

    def values_of(self, name: str) -> Tensor:
        """The values of all frames, one after the other."""
        return self.columns.values_of(name, self.rows)

    def present(self, name: str) -> np.ndarray:
        """Whether each frame (frames,) has the label ``name``."""
        return self.columns.present(name)[self.rows]

    def sizes(self, name: str) -> np.ndarray:
        """Entries of ``name`` of each frame (frames,)."""
        return self.columns.sizes(name, self.rows)

    def nbytes(self, names: Sequence[str]) -> int:
        """Memory that the values of these ``names`` take, of all frames."""
        total = 0
        for name in names:
            given = self.columns.given.get(name)
            values = self.columns.values[name] if given is None else given
            row = values.nbytes // max(1, values.shape[self.columns.axes.get(name, 0)])
            total += row * (int(self.sizes(name).sum()) if given is None else len(self))
        return total

    def texts(self, name: str) -> np.ndarray:
        codes, texts = self.columns.texts[name]
        return np.array(texts)[codes[self.rows]]

    def view(self, number: int) -> "FrameView":
        return FrameView(self.columns, int(self.rows[number]))


class FrameView:
    """One frame, of which only what is asked for is read, which takes less time than a frame to make."""

    def __init__(self, columns: FrameColumns, row: int):
        self._columns, self._row = columns, row

    def __contains__(self, name: str) -> bool:
        return name in self._columns.names()

    def __getitem__(self, name: str) -> Tensor:
        return self._columns.value(name, self._row)

    def __getattr__(self, name: str) -> Tensor:
        return self._columns.value(name, self._row)

    def get(self, name: str, default: Tensor | None = None) -> Tensor | None:
        return default if name not in self._columns.names() else self[name]

    @property
    def num_nodes(self) -> int:
        return len(self["pos"])

    @property
    def num_edges(self) -> int:
        return self["edge_index"].shape[1]


def completed(cells: Tensor) -> Tensor:
    """Cells (n, 3, 3), one or more, with the lattice vectors that they lack. ASE makes them one by one: here once for
    all that are alike, as those of molecules are."""
    distinct, which = cells.unique(dim=0, return_inverse=True)
    return torch.from_numpy(np.stack([complete_cell(cell) for cell in distinct.numpy()])).to(cells)[which]


def _ends(count: int) -> Iterator[tuple[int, int]]:
    """The first row and the one after the last of each block."""
    return ((first, min(first + BLOCK, count)) for first in range(0, count, BLOCK))


def place_in(file: Path, number: int) -> str:
    return f"{file}: frame {number}"
