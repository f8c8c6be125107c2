"""Energies and forces of one molecule: MD17, rMD17, or the ethanol frames that come with the project."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from datasets import MD17, EthanolPBE, FrameDataset
from train.data import Splits, with_neighbors
from train.options import FitOptions, ModelOptions, RunOptions, require_positive
from train.run import open_run_folder, train

DEFAULT_PRESET = "small"

# Training, validation and test: the protocol that rMD17 errors are published for.
PUBLISHED_SIZES = (950, 50, 1000)
# Of the embedded frames, a tenth each for validation and test.
EMBEDDED_HELD_OUT = 10


@dataclass(frozen=True)
class MD17Options:
    """Data: which frames.

    Args:
        root: folder with published MD17 or rMD17 files, downloaded if they are missing (default: the embedded frames).
        molecule: as published, such as aspirin; the embedded frames are ethanol.
        revised: rMD17 (true) or the original MD17 (false).
        split: published rMD17 split 1 to 5, or 0 for a random one (default: 1 for rMD17, otherwise 0).
        split_seed: of a random split, and of the choice of validation frames in a published one.
        train_size: training frames (default: 950; of the 1,000 embedded frames 800).
        val_size: validation frames (default: 50; of the embedded frames 100).
        test_size: test frames (default: 1000; of the embedded frames 100).
    """

    root: Path | None = None
    molecule: str = "ethanol"
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
        if self.root is None and self.split:
            raise ValueError(
                f"split={self.split}: the embedded frames have no published split, give --root or leave it out"
            )


OPTIONS = (MD17Options, ModelOptions, FitOptions, RunOptions)


def run(data: MD17Options, model: ModelOptions, fit: FitOptions, run: RunOptions, *, config: str) -> dict:
    """Reads the frames, trains, and returns what is written to ``metrics.json``."""
    splits = read_splits(data, model.cutoff)
    folder = open_run_folder(run, "md17", data.molecule, config)
    return train(splits, folder, model, fit, run)


def read_splits(options: MD17Options, cutoff: float) -> Splits:
    """The chosen frames with their neighbour lists."""
    if options.root is None:
        dataset, name = EthanolPBE(), "ethanol (embedded, PBE/def2-SVP)"
    else:
        dataset = MD17(options.root, options.molecule, revised=options.revised)
        name = f"{options.molecule} ({'rMD17' if options.revised else 'MD17'})"
    sizes = frame_counts(options, dataset)
    split = int(options.root is not None and options.revised) if options.split is None else options.split
    if split:
        indices = divide_published(*dataset.published_split(split), *sizes, options.split_seed)
        name = f"{name}, split {split}"
    else:
        indices = dataset.random_split(*sizes, seed=options.split_seed)
    return Splits(name, *(with_neighbors((dataset[i] for i in part.tolist()), cutoff) for part in indices))


def frame_counts(options: MD17Options, dataset: FrameDataset) -> list[int]:
    """Sizes of training, validation and test, the default wherever none is given."""
    held_out = len(dataset) // EMBEDDED_HELD_OUT
    embedded = (len(dataset) - 2 * held_out, held_out, held_out)
    defaults = embedded if options.root is None else PUBLISHED_SIZES
    given = (options.train_size, options.val_size, options.test_size)
    return [default if size is None else size for size, default in zip(given, defaults, strict=True)]


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
