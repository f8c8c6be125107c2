"""What many frames hold: of lists of frames, and of tables, which need not make the frames for it."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from train.frame_table import BLOCK, FrameTable

FrameSequence = TypeVar("FrameSequence", bound=Sequence)


def has_label(frame: Data, name: str) -> bool:
    return name in frame and not bool(frame[name].isnan().all())


def with_label(frames: Sequence[Data], name: str) -> np.ndarray:
    """Whether each frame (frames,) has the label ``name``."""
    if isinstance(frames, FrameTable):
        return frames.present(name)
    return np.array([has_label(frame, name) for frame in frames], bool)


def values_of(frames: Sequence[Data], name: str, axis: int = 0) -> Tensor:
    """The values ``name`` of one or more frames, one after the other along ``axis``."""
    if isinstance(frames, FrameTable):
        return frames.values_of(name)
    return torch.cat([frame[name] for frame in frames], dim=axis)


def num_atoms(frames: Sequence[Data]) -> np.ndarray:
    """Of each frame (frames,)."""
    return frames.sizes("pos") if isinstance(frames, FrameTable) else np.array([frame.num_nodes for frame in frames])


def num_edges(frames: Sequence[Data]) -> np.ndarray:
    """Of each frame (frames,)."""
    if isinstance(frames, FrameTable):
        return frames.sizes("edge_index")
    return np.array([frame.num_edges for frame in frames])


def heads_of(frames: Sequence[Data]) -> np.ndarray:
    """The number of the head of each frame (frames,); 0 where there are none."""
    if isinstance(frames, FrameTable):
        return values_of(frames, "head").numpy() if "head" in frames.columns.given else np.zeros(len(frames), np.int64)
    return np.array([int(frame.head) if "head" in frame else 0 for frame in frames])


def texts_of(frames: Sequence[Data], name: str, default: str) -> np.ndarray:
    """Text of each frame (frames,), such as its ``config_type``."""
    if isinstance(frames, FrameTable):
        return frames.texts(name)
    return np.array([frame.get(name, default) for frame in frames])


def blocks(frames: Sequence[Data]) -> Iterator[Sequence[Data]]:
    """``frames`` in their order, so many at a time that their values need little memory."""
    return (frames[first : first + BLOCK] for first in range(0, len(frames), BLOCK))


def elements(frames: Sequence[Data]) -> np.ndarray:
    """Atomic numbers that occur in ``frames``, ascending."""
    found = [np.unique(values_of(block, "z").numpy()) for block in blocks(frames)]
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)


def selected(frames: FrameSequence, numbers: np.ndarray) -> FrameSequence:
    """Those of ``frames`` with these ``numbers``, or for which a mask (frames,) is True: a list of a list or a tuple, a
    table of a table."""
    if not isinstance(frames, list | tuple):
        return cast(Any, frames)[numbers]
    return cast(Any, [frames[i] for i in (np.flatnonzero(numbers) if numbers.dtype == bool else numbers).tolist()])


def concatenated(frames: Sequence[Data], others: Sequence[Data]) -> Sequence[Data]:
    if isinstance(frames, FrameTable) and isinstance(others, FrameTable):
        return frames + others
    return [*frames, *others]
