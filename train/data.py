"""Frames of a data set, ready to train on: split, with neighbour lists, batched."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from pyg_cgconv.neighbors import RadiusGraph
from train.metrics import Labels

# Forces of a validation batch are not differentiated again, so that a batch takes about a quarter of the memory.
EVALUATION_BATCH_FACTOR = 4


@dataclass(frozen=True)
class Splits:
    """Three disjoint lists of frames and what they are called in tables and plots."""

    name: str
    train: Sequence[Data]
    validation: Sequence[Data]
    test: Sequence[Data]

    def sizes(self) -> dict[str, int]:
        return {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)}


def with_neighbors(frames: Iterable[Data], cutoff: float) -> list[Data]:
    """The neighbour list of each frame, computed once and kept in memory."""
    connect = RadiusGraph(cutoff)
    return [connect(frame) for frame in frames]


def check_species(splits: Splits) -> None:
    """Raises ValueError where validation or test frames hold elements that the potential does not learn in training."""
    known = set(torch.cat([frame.z for frame in splits.train]).tolist())
    for part in ("validation", "test"):
        unknown = set(torch.cat([frame.z for frame in getattr(splits, part)]).tolist()) - known
        if unknown:
            raise ValueError(
                f"{part} frames hold atomic numbers {sorted(unknown)}, the training frames only {sorted(known)}"
            )


def labels(frames: Sequence[Data]) -> Labels:
    """Reference energies and forces of ``frames``."""
    return Labels(
        energy=torch.cat([frame.energy for frame in frames]).double().numpy(),
        forces=torch.cat([frame.forces for frame in frames]).double().numpy(),
        num_atoms=np.array([frame.num_nodes for frame in frames]),
    )


class FrameDataModule(LightningDataModule):
    """Batches of each split; the training frames come in a new random order every epoch."""

    def __init__(self, splits: Splits, batch_size: int, num_workers: int = 0):
        super().__init__()
        self.splits = splits
        self.batch_size = batch_size
        self.num_workers = num_workers

    def train_dataloader(self) -> DataLoader:
        return self._loader(self.splits.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return self._loader(self.splits.validation, EVALUATION_BATCH_FACTOR * self.batch_size)

    def predict_dataloader(self) -> list[DataLoader]:
        """Validation and test frames, in this order."""
        evaluated = (self.splits.validation, self.splits.test)
        return [self._loader(frames, EVALUATION_BATCH_FACTOR * self.batch_size) for frames in evaluated]

    def transfer_batch_to_device(self, batch: Data, device: torch.device, dataloader_idx: int) -> Data:
        return batch.to(device, non_blocking=True)  # Lightning's own copy of a PyG batch would wait for each tensor

    def _loader(self, frames: Sequence[Data], batch_size: int, shuffle: bool = False) -> DataLoader:
        return DataLoader(
            frames,
            batch_size=batch_size,
            shuffle=shuffle,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
