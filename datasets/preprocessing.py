"""Filters and transforms applied to every structure once, by several processes, with a progress bar."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.data.collate import collate
from tqdm import tqdm

# A pre_transform over more frames than this takes minutes: show a progress bar.
FRAMES_WORTH_A_BAR = 10_000
# Come back from a process in one piece: with neighbour lists, molecules of 18 atoms make about 1 MB.
FRAMES_IN_A_PART = 256


def processed(
    dataset: InMemoryDataset, pre_filter: Callable | None, pre_transform: Callable | None, num_workers: int = 0
) -> tuple[Data, dict[str, Tensor] | None]:
    """What ``InMemoryDataset.collate`` makes of the items that pass the filter, after the transform, in their order.

    Raises:
        ValueError: the filter keeps nothing; ``num_workers`` is negative.
        TypeError: with workers, the transform writes an attribute that is neither a tensor nor a number.
    """
    if num_workers < 0:
        raise ValueError(f"num_workers: expected 0 or more processes, got {num_workers}")
    frames = _Processed(dataset, pre_filter, pre_transform)
    bar = tqdm(desc="frames", total=len(frames), disable=len(frames) < FRAMES_WORTH_A_BAR)
    with bar:
        kept = _in_parallel(frames, num_workers, bar) if num_workers else _one_by_one(frames, bar)
    if not kept:
        raise ValueError(f"pre_filter: it keeps none of the {len(frames)} frames")
    return _joined(kept) if num_workers else InMemoryDataset.collate(kept)


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


def _one_by_one(frames: _Processed, bar: tqdm) -> list[Data]:
    kept = []
    for number in range(len(frames)):
        frame = frames[number]
        bar.update()
        if frame is not None:
            kept.append(frame)
    return kept


# === by several processes ===

Part = tuple[Data, dict[str, Tensor]]


def _in_parallel(frames: _Processed, num_workers: int, bar: tqdm) -> list[Part]:
    """Frames in parts, in their order, whichever process was the faster."""
    loader = DataLoader(
        frames,
        batch_size=FRAMES_IN_A_PART,
        num_workers=num_workers,
        collate_fn=_packed,
        generator=torch.Generator(),  # else the loader would draw from the global one
    )
    kept = []
    for number, part in enumerate(loader):
        bar.update(min(FRAMES_IN_A_PART, len(frames) - number * FRAMES_IN_A_PART))
        if part is not None:
            kept.append((part[0].clone(), part[1]))  # out of shared memory, of which there may be little
    return kept


def _packed(frames: list[Data | None]) -> Part | None:
    kept = [frame for frame in frames if frame is not None]
    if not kept:
        return None
    data, slices, _ = collate(type(kept[0]), kept, increment=False, add_batch=False)
    return data, slices


def _joined(parts: list[Part]) -> Part:
    first = parts[0][0]
    names = set(first.keys())
    for data, _ in parts:
        foreign = [name for name, value in data.to_dict().items() if not isinstance(value, Tensor)]
        if foreign or set(data.keys()) != names:
            raise TypeError(
                f"pre_transform: with num_workers, every frame must have the same attributes, tensors or numbers, but "
                f"{foreign or set(data.keys()) ^ names} differ; use num_workers=0"
            )
    whole, slices = type(first)(), {}
    for name in first.to_dict():
        dim = first.__cat_dim__(name, first[name]) or 0
        whole[name] = torch.cat([data[name] for data, _ in parts], dim=dim)
        sizes = torch.cat([part_slices[name].diff() for _, part_slices in parts])
        slices[name] = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    return whole, slices
