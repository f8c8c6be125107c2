"""Frames of a data set, ready to train on: split, with neighbour lists and labels alike, batched."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from torch import Tensor
from torch_geometric.data import Batch, Data, Dataset
from torch_geometric.loader import DataLoader

from datasets.atoms_details import DEFAULT_CONFIG_TYPE
from datasets.atoms_labels import MOMENTS
from datasets.label_names import item_shape
from pyg_cgconv.potential import RadiusGraph
from train.columns import elements, has_label, heads_of, num_atoms, selected, texts_of, values_of, with_label
from train.frame_table import FrameTable, completed
from train.isolated_atoms import IsolatedAtom
from train.loss import QUANTITIES
from train.metrics import Labels
from train.sampler import EpochSampler

# Forces of a validation batch are not differentiated again, so that a batch takes about a quarter of the memory.
EVALUATION_BATCH_FACTOR = 4


@dataclass(frozen=True)
class Splits:
    """Three disjoint lists of frames, what they are called in tables and plots, and isolated atoms, in none of them.

    Of the old frames of a fine-tuning some are among those to train on and to validate, marked by ``replayed``;
    ``replay`` are others, tested by themselves. With ``heads``, names of levels of theory, each frame has the number of
    its ``head`` (1,).
    """

    name: str
    train: Sequence[Data]
    validation: Sequence[Data]
    test: Sequence[Data]
    isolated: Sequence[IsolatedAtom] = ()
    replay: Sequence[Data] = ()
    heads: Sequence[str] = ()

    def parts(self) -> dict[str, Sequence[Data]]:
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return parts | ({"replay": self.replay} if len(self.replay) else {})

    def by_head(self) -> list["Splits"]:
        """The frames of each head; all of them where there are no heads."""
        if not self.heads:
            return [self]
        lists = ("train", "validation", "test", "replay")
        return [
            Splits(
                f"head {name}",
                isolated=[atom for atom in self.isolated if atom.head == number],
                **{part: selected(getattr(self, part), heads_of(getattr(self, part)) == number) for part in lists},
            )
            for number, name in enumerate(self.heads)
        ]

    def sizes(self) -> dict[str, int]:
        return {name: len(frames) for name, frames in self.parts().items()}


def embedded_counts(available: int) -> tuple[int, int, int]:
    """Training, validation and test frames of an embedded set, of which nobody published a split: a tenth is tested."""
    held_out = available // 10
    return available - 2 * held_out, held_out, held_out


def numbered(dataset: Dataset, numbers: Tensor) -> Iterator[Data]:
    """The items with these ``numbers``, each with its ``place``, which reports of the worst frames name."""
    for number in numbers.tolist():
        frame = dataset[number]
        frame.place = f"number {number}"
        yield frame


def with_neighbors(frames: Iterable[Data], cutoff: float) -> list[Data]:
    """The neighbour list of each frame, computed once and kept in memory."""
    connect = RadiusGraph(cutoff)
    return [connect(frame) for frame in frames]


def check_species(splits: Splits, of: str = "") -> None:
    """Raises ValueError where validation or test frames hold elements that the potential does not learn in training."""
    known = set(elements(splits.train).tolist())
    for part, frames in splits.parts().items():
        if unknown := set(elements(frames).tolist()) - known:
            raise ValueError(
                f"{part} frames{of} hold atomic numbers {sorted(unknown)}, the training frames only {sorted(known)}"
            )


def quantities_of(frames: Sequence[Data]) -> tuple[str, ...]:
    """Those of :data:`train.loss.QUANTITIES` that any of ``frames`` has a label of."""
    return tuple(name for name in QUANTITIES if with_label(frames, name).any())


def check_label_names(names: Collection[str]) -> None:
    """Raises ValueError where labels need an energy beside them: all but charges and dipoles are those of one."""
    if "energy" not in names and not set(names) <= set(MOMENTS):
        raise ValueError(
            f"labels={list(names)}: expected energy among them, of which forces, stress and energies of atoms are; "
            "only charges and dipole may be without it"
        )


def made_alike(frames: Sequence[Data]) -> None:
    """Gives all ``frames`` the attributes that any of them has, in place: PyG can batch molecules with crystals. Those
    of a table are alike.

    A missing label is NaN, a missing weight 1, a missing charge 0, a missing ``config_type`` "Default". A missing cell,
    or one that spans no volume, is completed by unit vectors in directions that are not periodic: nothing but the
    stress depends on them.

    Raises:
        ValueError: a frame has a stress but no volume.
    """
    if isinstance(frames, FrameTable):
        return
    labels = [name for name in QUANTITIES if any(name in frame for frame in frames)]
    cells, weights, config_types, charges = (
        any(name in frame for frame in frames) for name in ("cell", "weight", "config_type", "charge")
    )
    for number, frame in enumerate(frames):
        for name in labels:
            if name not in frame:
                frame[name] = torch.full(item_shape(name, frame.num_nodes), torch.nan, dtype=torch.float64)
        if charges and "charge" not in frame:
            frame.charge = torch.zeros(1, dtype=torch.float64)
        if weights and "weight" not in frame:
            frame.weight = torch.ones(1, len(QUANTITIES), dtype=torch.float64)
        if config_types and "config_type" not in frame:
            frame.config_type = DEFAULT_CONFIG_TYPE
        if cells:
            _complete_cell(frame, number)


def _complete_cell(frame: Data, number: int) -> None:
    if "cell" not in frame:
        frame.cell = torch.zeros(1, 3, 3, dtype=torch.float64)
        frame.pbc = torch.zeros(1, 3, dtype=torch.bool)
        frame.edge_shift = frame.pos.new_zeros(frame.num_edges, 3)
    if torch.linalg.det(frame.cell).abs() == 0:
        if has_label(frame, "stress"):
            raise ValueError(f"stress of frame {number}: its cell {frame.cell[0].tolist()} has no volume; leave it out")
        frame.cell = completed(frame.cell)


def labels(frames: Sequence[Data], heads: Sequence[str] = (), names: Sequence[str] = QUANTITIES) -> Labels:
    """Reference labels of ``frames``, of which each has one of ``heads``, if there are some; those with these
    ``names``."""
    return Labels(
        **{name: _values_if_any(frames, name) if name in names else None for name in QUANTITIES},
        num_atoms=num_atoms(frames),
        numbers=values_of(frames, "z").to(torch.uint8).numpy(),
        config_types=_config_types(frames),
        heads=np.array(heads)[heads_of(frames)] if heads else None,
    )


def _config_types(frames: Sequence[Data]) -> np.ndarray | None:
    """The names (frames,), None where all frames have the same or none."""
    names = texts_of(frames, "config_type", DEFAULT_CONFIG_TYPE)
    return names if len(np.unique(names)) > 1 else None


def _values_if_any(frames: Sequence[Data], name: str) -> np.ndarray | None:
    return values_of(frames, name).double().numpy() if with_label(frames, name).any() else None


class FrameDataModule(LightningDataModule):
    """Batches of each split; the training frames come in a new random order every epoch.

    Its state in a checkpoint is the place in that order: a training that goes on sees the batches that it would have
    seen.

    Args:
        splits: the frames.
        batch_size: frames that a device takes at a time.
        num_workers: processes that assemble batches; 0 for none.
        seed: of the order of the training frames.
    """

    def __init__(self, splits: Splits, batch_size: int, num_workers: int = 0, seed: int = 0):
        super().__init__()
        self.splits = splits
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self._place = {"epoch": 0, "batches": 0}

    def state_dict(self) -> dict[str, int]:
        """The epoch, from 0, and how many of its batches are done."""
        if self.trainer is None:
            return self._place
        loop: Any = self.trainer.fit_loop  # Lightning's types have no `processed`
        return {
            "epoch": loop.epoch_progress.current.processed,
            "batches": loop.epoch_loop.batch_progress.current.processed,
        }

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self._place = state_dict

    def train_dataloader(self) -> torch.utils.data.DataLoader:
        frames, place = self.splits.train, self._place
        skip = place["batches"] * self.batch_size
        sampler = EpochSampler(frames, self.seed, *self._devices(), epoch=place["epoch"], skip=skip)
        return self._loader(frames, self.batch_size, sampler)

    def val_dataloader(self) -> torch.utils.data.DataLoader:
        devices, device = self._devices()
        frames = self.splits.validation
        sampler = UnrepeatedDistributedSampler(frames, devices, device, shuffle=False) if devices > 1 else None
        return self._loader(frames, EVALUATION_BATCH_FACTOR * self.batch_size, sampler)

    def predict_dataloader(self) -> list[torch.utils.data.DataLoader]:
        """Validation, test and, if there are any, old test frames, in this order."""
        evaluated = [frames for part, frames in self.splits.parts().items() if part != "train"]
        return [self._loader(frames, EVALUATION_BATCH_FACTOR * self.batch_size) for frames in evaluated]

    def transfer_batch_to_device(self, batch: Data, device: torch.device, dataloader_idx: int) -> Data:
        return batch.to(device, non_blocking=True)  # Lightning's own copy of a PyG batch would wait for each tensor

    def _devices(self) -> tuple[int, int]:
        """The number of devices that share the frames, and which of them this is."""
        return (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)

    def _loader(self, frames: Sequence[Data], batch_size: int, sampler=None) -> torch.utils.data.DataLoader:
        options: dict[str, Any] = {
            "batch_size": batch_size,
            "sampler": sampler,
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
        }
        if isinstance(frames, FrameTable):  # which gives batches, not frames
            return torch.utils.data.DataLoader(cast(Any, frames), collate_fn=_as_it_is, **options)
        return DataLoader(frames, **options)


def _as_it_is(batch: Batch) -> Batch:
    return batch
