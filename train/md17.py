"""Energies and forces of one molecule: MD17, rMD17, coupled cluster, or the ethanol frames that come along."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from datasets import MD17, MD17CCSD, EthanolPBE, FrameDataset
from train.data import Splits, embedded_counts, numbered, with_neighbors
from train.options import FitOptions, ModelOptions, RunOptions, require_positive
from train.run import open_run_folder, train

DEFAULT_PRESET = "small"

# Training, validation and test: the protocol that rMD17 errors are published for.
PUBLISHED_SIZES = (950, 50, 1000)


@dataclass(frozen=True)
class MD17Options:
    """Data: which frames.

    Args:
        root: folder with published files, downloaded if they are missing (default: the embedded frames).
        molecule: as published, such as aspirin; the embedded frames are ethanol.
        reference: dft, the sets of MD17 and rMD17; or ccsd, those of coupled cluster: CCSD(T) for benzene, ethanol,
            malonaldehyde and toluene, CCSD for aspirin.
        revised: of dft, rMD17 (true) or the original MD17 (false).
        split: 0 for a random split; of rMD17, 1 to 5 for a published one (default: published split 1 of rMD17, the
            published one of ccsd, otherwise 0).
        split_seed: of a random split, and of the choice of validation frames in a published one.
        train_size: training frames (default: 950; of the 1,000 embedded frames 800).
        val_size: validation frames (default: 50; of the embedded frames 100).
        test_size: test frames (default: 1000; of ccsd all published ones, 500 or 1000; of the embedded frames 100).
    """

    root: Path | None = None
    molecule: str = "ethanol"
    reference: Literal["dft", "ccsd"] = "dft"
    revised: bool = True
    split: int | None = None
    split_seed: int = 0
    train_size: int | None = None
    val_size: int | None = None
    test_size: int | None = None

    def __post_init__(self):
        require_positive(self, "train_size", "val_size", "test_size")
        if self.root is None and self.molecule != "ethanol":
            raise ValueError(
                f"molecule={self.molecule!r}: the embedded frames are ethanol, give --root for published ones"
            )
        if self.root is None and self.reference == "ccsd":
            raise ValueError("reference='ccsd': the embedded frames are of DFT, give --root for published ones")
        if self.root is None and self.split:
            raise ValueError(
                f"split={self.split}: the embedded frames have no published split, give --root or leave it out"
            )
        if self.reference == "ccsd" and not self.revised:
            raise ValueError("revised=False: it chooses among sets of DFT, leave it out with reference='ccsd'")
        if self.reference == "ccsd" and self.split:
            raise ValueError(
                f"split={self.split}: frames of coupled cluster have one published split, leave the option out"
            )


OPTIONS = (MD17Options, ModelOptions, FitOptions, RunOptions)


def run(data: MD17Options, model: ModelOptions, fit: FitOptions, run: RunOptions, *, config: str) -> dict:
    """Reads the frames, trains, and returns what is written to ``metrics.json``."""
    splits = read_splits(data, model.cutoff)
    folder = open_run_folder(run, "md17", data.molecule, config)
    return train(splits, folder, model, fit, run)


def read_splits(options: MD17Options, cutoff: float) -> Splits:
    """The chosen frames with their neighbour lists."""
    dataset, name, indices = choose_frames(options)
    return Splits(name, *(with_neighbors(numbered(dataset, part), cutoff) for part in indices))


def choose_frames(options: MD17Options) -> tuple[FrameDataset, str, tuple[Tensor, Tensor, Tensor]]:
    """All frames, what they are called, and the numbers of those to train on, to validate and to test."""
    dataset, name, published = read_dataset(options)
    sizes = frame_counts(options, dataset)
    if published is None:
        return dataset, name, dataset.random_split(*sizes, seed=options.split_seed)
    return dataset, name, divide_published(*published, *sizes, options.split_seed)


def read_dataset(options: MD17Options) -> tuple[FrameDataset, str, tuple[Tensor, Tensor] | None]:
    """All frames, what they are called, and which of them train and test in the published split, if one is wanted."""
    if options.root is None:
        return EthanolPBE(), "ethanol (embedded, PBE/def2-SVP)", None
    if options.reference == "ccsd":
        dataset = MD17CCSD(options.root, options.molecule)
        published = None if options.split == 0 else dataset.published_split()
        return dataset, f"{options.molecule} ({dataset.level})", published
    dataset = MD17(options.root, options.molecule, revised=options.revised)
    name = f"{options.molecule} ({'rMD17' if options.revised else 'MD17'})"
    split = int(options.revised) if options.split is None else options.split
    if split == 0:
        return dataset, name, None
    return dataset, f"{name}, split {split}", dataset.published_split(split)


def frame_counts(options: MD17Options, dataset: FrameDataset) -> tuple[int, int, int]:
    """Sizes of training, validation and test, the default wherever none is given."""
    train, validation, test = default_counts(options, dataset)
    return options.train_size or train, options.val_size or validation, options.test_size or test


def default_counts(options: MD17Options, dataset: FrameDataset) -> tuple[int, int, int]:
    if options.root is None:
        return embedded_counts(len(dataset))
    if options.reference == "ccsd":
        train, test = dataset.published_split()
        _, validation, _ = PUBLISHED_SIZES
        return len(train) - validation, validation, len(test)
    return PUBLISHED_SIZES


def divide_published(
    train: Tensor, test: Tensor, train_size: int, val_size: int, test_size: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Training and validation frames from the published training frames, test frames from the published test frames."""
    if train_size + val_size > len(train):
        raise ValueError(
            f"train_size={train_size} and val_size={val_size}: the published split has {len(train)} frames for both, "
            "ask for fewer or draw a random split with --split 0"
        )
    if test_size > len(test):
        raise ValueError(
            f"test_size={test_size}: the published split has {len(test)} test frames, "
            "ask for fewer or draw a random split with --split 0"
        )
    train = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))]
    return train[:train_size], train[train_size : train_size + val_size], test[:test_size]
