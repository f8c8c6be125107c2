"""Filters and transforms applied to every structure once, by several processes, with a progress bar."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch_geometric.data import Data, InMemoryDataset
from tqdm import tqdm

from datasets.joined import FRAMES_IN_A_PART, Part, joined, packed

# A pre_transform over more frames than this takes minutes: show a progress bar.
FRAMES_WORTH_A_BAR = 10_000


def processed(
    dataset: InMemoryDataset,
    pre_filter: Callable | None,
    pre_transform: Callable | None,
    num_workers: int = 0,
    folder: Path | None = None,
) -> tuple[Data, dict[str, Tensor] | None]:
    """What ``InMemoryDataset.collate`` makes of the items that pass the filter, after the transform, in their order.

    Args:
        folder: where files without a name keep it, so that it may be larger than the memory; without it it is in
            memory.

    Raises:
        ValueError: the filter keeps nothing; ``num_workers`` is negative.
        TypeError: with workers or a folder, the transform writes an attribute that is neither a tensor nor a number.
    """
    if num_workers < 0:
        raise ValueError(f"num_workers: expected 0 or more processes, got {num_workers}")
    frames = _Processed(dataset, pre_filter, pre_transform)
    bar = tqdm(desc="frames", total=len(frames), disable=len(frames) < FRAMES_WORTH_A_BAR)
    with bar:
        if num_workers or folder:
            made = joined(_in_parallel(frames, num_workers, bar) if num_workers else _in_turn(frames, bar), folder)
        else:
            kept = [frame for frame in _one_by_one(frames, bar) if frame is not None]
            made = InMemoryDataset.collate(kept) if kept else None
    if made is None:
        raise ValueError(f"pre_filter: it keeps none of the {len(frames)} frames")
    return made


class _Processed(Dataset):
    """The items after filter and transform; None where the filter refuses."""

    def __init__(self, dataset: InMemoryDataset, pre_filter: Callable | None, pre_transform: Callable | None):
        self.dataset, self.pre_filter, self.pre_transform = dataset, pre_filter, pre_transform

    def __len__(self) -> int:
        return self.dataset.len()

    def __getitem__(self, number: int) -> Data | None:
        frame = self.dataset.get(number)
        if self.pre_filter is not None and not self.pre_filter(frame):
            return None
        return frame if self.pre_transform is None else self.pre_transform(frame)


def _one_by_one(frames: _Processed, bar: tqdm) -> Iterator[Data | None]:
    for number in range(len(frames)):
        yield frames[number]
        bar.update()


def _in_turn(frames: _Processed, bar: tqdm) -> Iterator[Part]:
    """Frames in parts, by this process."""
    all_frames = _one_by_one(frames, bar)
    while several := list(islice(all_frames, FRAMES_IN_A_PART)):
        if (part := _packed(several)) is not None:
            yield part


def _in_parallel(frames: _Processed, num_workers: int, bar: tqdm) -> Iterator[Part]:
    """Frames in parts, in their order, whichever process was the faster."""
    loader = DataLoader(
        frames,
        batch_size=FRAMES_IN_A_PART,
        num_workers=num_workers,
        collate_fn=_packed,
        generator=torch.Generator(),  # else the loader would draw from the global one
    )
    for number, part in enumerate(loader):
        bar.update(min(FRAMES_IN_A_PART, len(frames) - number * FRAMES_IN_A_PART))
        if part is not None:
            yield part


def _packed(frames: list[Data | None]) -> Part | None:
    kept = [frame for frame in frames if frame is not None]
    return packed(kept) if kept else None
