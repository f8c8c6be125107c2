"""Frames divided at random into those to train on, to validate and to test."""

from collections.abc import Sequence

import numpy as np
import torch

from train.columns import FrameSequence, selected


def divide(
    frames: FrameSequence,
    validation: FrameSequence | int,
    test: FrameSequence | int,
    seed: int,
    labelled: np.ndarray | None = None,
    option: str = "train_file",
) -> tuple[FrameSequence, FrameSequence, FrameSequence]:
    """Training, validation and test frames; of the latter two, numbers are drawn at random from ``frames``.

    The test frames do not depend on how many are drawn for validation. Of each label that several of the frames left
    have, a frame is drawn for validation: what is learned can be watched, however few have it.

    Args:
        frames: to be divided.
        validation: frames, or how many are drawn.
        test: likewise.
        seed: of the draw.
        labelled: (frames, labels) bool, which labels each of ``frames`` has.
        option: where ``frames`` come from, for messages.

    Raises:
        ValueError: no training frame is left.
    """
    held_out = [part for part in (test, validation) if isinstance(part, int)]
    if sum(held_out) >= len(frames):
        raise ValueError(
            f"{option}: {len(frames)} frames, of which {sum(held_out)} are to be held out for validation and test: "
            "give more frames, smaller val_size and test_size, or val_file and test_file"
        )
    left = torch.randperm(len(frames), generator=torch.Generator().manual_seed(seed)).numpy()
    if isinstance(test, int):
        test, left = selected(frames, left[:test]), left[test:]
    if isinstance(validation, int):
        if labelled is not None:
            left = with_all_labels_first(left, validation, labelled)
        validation, left = selected(frames, left[:validation]), left[validation:]
    return selected(frames, left), validation, test


def drawn(frames: FrameSequence, count: int, seed: int) -> FrameSequence:
    """``count`` of ``frames`` at random, in their order."""
    order = torch.randperm(len(frames), generator=torch.Generator().manual_seed(seed))[:count]
    return selected(frames, order.sort().values.numpy())


def frame_count(size: float, frames: Sequence) -> int:
    """``size`` as a number of frames, at least one; below 1 it is a part of ``frames``."""
    return int(size) if size >= 1 else max(1, round(size * len(frames)))


def with_all_labels_first(order: np.ndarray, count: int, labelled: np.ndarray) -> np.ndarray:
    """``order`` (n,), numbers of frames, with few exchanged so that the first ``count`` have each label that several of
    them have.

    Args:
        labelled: (frames, labels) bool, which labels each frame has.
    """
    order = order.copy()
    for label in range(labelled.shape[1]):
        owners = np.flatnonzero(labelled[order, label])
        if len(owners) < 2 or owners[0] < count:
            continue
        replaced = _least_missed(labelled[order[:count]])
        order[[replaced, owners[0]]] = order[[owners[0], replaced]]
    return order


def _least_missed(labelled: np.ndarray) -> int:
    """The last of those frames with labels that others have, too; where there is none, the last."""
    only = labelled & (labelled.sum(axis=0) == 1)
    shared = np.flatnonzero(~only.any(axis=1))
    return int(shared[-1]) if len(shared) else len(labelled) - 1
