"""The splits that come with rMD17: splits/index_train_01.csv and index_test_01.csv to 05, one frame number a line."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

PUBLISHED_SPLITS = range(1, 6)


def read_split(npz: Path, number: int, num_frames: int) -> tuple[Tensor, Tensor]:
    """Indices (train,) and (test,) int64 of published split ``number`` into the ``num_frames`` frames of ``npz``.

    Raises:
        FileNotFoundError: the splits do not lie where the archive has them, beside the folder of the npz files.
        ValueError: there is no such split, or the file is not a list of frame numbers, each once and in range.
    """
    if number not in PUBLISHED_SPLITS:
        raise ValueError(f"number: rMD17 has splits 1 to 5, got {number!r}")
    train, test = (_read_indices(_find(npz, f"index_{part}_{number:02}.csv"), num_frames) for part in ("train", "test"))
    shared = np.intersect1d(train, test)
    if len(shared):
        raise ValueError(f"{npz}: split {number} has frames both in train and in test, such as {shared[0]}")
    return torch.from_numpy(train), torch.from_numpy(test)


def _find(npz: Path, name: str) -> Path:
    places = [folder / "splits" / name for folder in (npz.parent.parent, npz.parent)]
    for path in places:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"{places[0]}: no such file (nor {places[1]}); take the folder 'splits' from the published archive, "
        "or use random_split(train, validation, test, seed)"
    )


def _read_indices(path: Path, num_frames: int) -> np.ndarray:
    try:
        indices = np.array(path.read_text().split(), dtype=np.int64)
    except ValueError as error:  # UnicodeDecodeError is one
        raise ValueError(f"{path}: expected one frame number a line ({error})") from error
    if len(indices) == 0:
        raise ValueError(f"{path}: expected one frame number a line, got an empty file")
    if indices.min() < 0 or indices.max() >= num_frames:
        raise ValueError(
            f"{path}: numbers frames {indices.min()} to {indices.max()}, but the npz file has frames 0 to "
            f"{num_frames - 1}; take both from the same archive"
        )
    if len(np.unique(indices)) != len(indices):
        raise ValueError(f"{path}: a frame number occurs twice")
    return indices
