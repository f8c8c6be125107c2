"""Frames that come in parts, joined: in memory, or in files, of which only what is being looked at takes memory."""

import os
import tempfile
from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.collate import collate

Part = tuple[Data, dict[str, Tensor]]  # frames in one, and where each begins
# Are in memory together, and come back from a process in one piece: with neighbour lists, 250 atoms of a metal make
# 15 MB, molecules of 18 atoms 0.1 MB, which a process takes longer to make than to send.
FRAMES_IN_A_PART = 32


def packed(frames: Sequence[Data]) -> Part:
    """``frames``, one or more, in one."""
    data, begins, _ = collate(type(frames[0]), list(frames), increment=False, add_batch=False)
    return data, begins


def joined(parts: Iterable[Part], folder: Path | None = None) -> Part | None:
    """What ``InMemoryDataset.collate`` makes of all frames of ``parts``; None if there are none.

    Args:
        parts: frames, as PyG's ``collate`` makes them; they are taken one after the other.
        folder: where files without a name keep the joined tensors, so that they may be larger than the memory; without
            it they are in memory.

    Raises:
        TypeError: frames have different attributes, or one that is neither a tensor nor a number.
        OSError: the disk is full.
    """
    columns: dict[str, Column] = {}
    begins: dict[str, Column] = {}
    first: Data | None = None
    for data, slices in parts:
        if first is None:
            first = data
            columns, begins = ({name: _column(folder) for name in data.to_dict()} for _ in range(2))
        _check_alike(data, set(columns))
        for name, column in columns.items():
            begins[name].append(slices[name][:-1] + column.length)
            column.append(data[name].movedim(_axis(first, name), 0))
    if first is None:
        return None
    whole = type(first)()
    for name, column in columns.items():
        begins[name].append(torch.tensor([column.length]))
        whole[name] = column.joined(_axis(first, name))
    return whole, {name: column.joined(0) for name, column in begins.items()}


def item(whole: Data, begins: dict[str, Tensor], number: int) -> Data:
    """One of the frames that are joined in ``whole``, without a copy of what it holds."""
    values = {}
    for name, value in whole.to_dict().items():
        first, end = begins[name][number : number + 2].tolist()
        values[name] = value.narrow(_axis(whole, name), first, end - first)
    return type(whole).from_dict(values)


def _axis(data: Data, name: str) -> int:
    return data.__cat_dim__(name, data[name]) or 0


def _check_alike(data: Data, names: set[str]) -> None:
    foreign = [name for name, value in data.to_dict().items() if not isinstance(value, Tensor)]
    if foreign or set(data.to_dict()) != names:
        raise TypeError(
            f"pre_transform: with num_workers or a cache, every frame must have the same attributes, tensors or "
            f"numbers, but {foreign or set(data.to_dict()) ^ names} differ; use num_workers=0 without a cache"
        )


class MemoryColumn:
    """A tensor that grows along its first axis."""

    def __init__(self):
        self.length = 0
        self._pieces: list[Tensor] = []

    def append(self, piece: Tensor) -> None:
        self.length += len(piece)
        self._pieces.append(piece.clone())  # out of memory that processes share, of which there may be little

    def joined(self, axis: int) -> Tensor:
        """All that was appended, the first axis at the place ``axis``."""
        pieces, self._pieces = self._pieces, []  # which nobody needs any more
        return torch.cat(pieces).movedim(0, axis).contiguous()


class FileColumn:
    """The same in a file of ``folder`` that has no name and is gone with the tensor."""

    def __init__(self, folder: Path):
        self._folder, self.length = folder, 0
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # it lives as long as the column

    def append(self, piece: Tensor) -> None:
        array = piece.contiguous().numpy()
        self._dtype, self._shape = array.dtype, array.shape[1:]
        self.length += len(array)
        self._file.write(array.data)

    def joined(self, axis: int) -> Tensor:
        self._file.flush()
        shape = (self.length, *self._shape)
        whole = mapped(self._file, self._dtype, shape)
        if axis == 0:
            return whole
        turned = whole.movedim(0, axis)
        with tempfile.TemporaryFile(dir=self._folder) as file:
            os.posix_fallocate(file.fileno(), 0, max(1, whole.nbytes))  # a full disk is an error now, not a crash later
            return mapped(file, self._dtype, tuple(turned.shape), mode="r+").copy_(turned)


Column = MemoryColumn | FileColumn


def _column(folder: Path | None) -> Column:
    return FileColumn(folder) if folder else MemoryColumn()


def mapped(file, dtype: np.dtype, shape: tuple[int, ...], mode: str = "c") -> Tensor:
    """The content of ``file`` as a tensor; what is written to it goes to the file only with the mode ``r+``."""
    if not prod(shape):
        return torch.from_numpy(np.empty(shape, dtype))  # nothing cannot be mapped
    return torch.from_numpy(np.memmap(file, dtype, mode, shape=shape))  # type: ignore[call-overload]  # modes are text
