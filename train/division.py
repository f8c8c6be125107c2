"""Frames divided at random into those to train on, to validate and to test."""

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

import torch

Frame = TypeVar("Frame")


def divide(
    frames: Sequence[Frame],
    validation: Sequence[Frame] | int,
    test: Sequence[Frame] | int,
    seed: int,
    labels_of: Callable[[Frame], Collection[str]] = lambda frame: (),
    option: str = "train_file",
) -> tuple[list[Frame], list[Frame], list[Frame]]:
    """Training, validation and test frames; of the latter two, numbers are drawn at random from ``frames``.

    The test frames do not depend on how many are drawn for validation. Of each label that several of the frames left
    have, a frame is drawn for validation: what is learned can be watched, however few have it.

    Args:
        frames: to be divided.
        validation: frames, or how many are drawn.
        test: likewise.
        seed: of the draw.
        labels_of: the names of the labels of a frame.
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
    order = torch.randperm(len(frames), generator=torch.Generator().manual_seed(seed)).tolist()
    test_frames, left = _drawn(test, [frames[i] for i in order])
    if isinstance(validation, int):
        left = with_all_labels_first(left, validation, labels_of)
    validation_frames, left = _drawn(validation, left)
    return left, validation_frames, test_frames


def drawn(frames: Sequence[Frame], count: int, seed: int) -> list[Frame]:
    """``count`` of ``frames`` at random, in their order."""
    order = torch.randperm(len(frames), generator=torch.Generator().manual_seed(seed))[:count]
    return [frames[i] for i in sorted(order.tolist())]


def frame_count(size: float, frames: Sequence) -> int:
    """``size`` as a number of frames, at least one; below 1 it is a part of ``frames``."""
    return int(size) if size >= 1 else max(1, round(size * len(frames)))


def _drawn(wanted: Sequence[Frame] | int, shuffled: list[Frame]) -> tuple[list[Frame], list[Frame]]:
    """The frames that are wanted, or so many of those that are ``shuffled``; and what is left of these."""
    if isinstance(wanted, int):
        return shuffled[:wanted], shuffled[wanted:]
    return list(wanted), shuffled


def with_all_labels_first(
    shuffled: list[Frame], count: int, labels_of: Callable[[Frame], Collection[str]]
) -> list[Frame]:
    """``shuffled``, with few frames exchanged so that the first ``count`` have each label that several frames have."""
    held = [set(labels_of(frame)) for frame in shuffled]
    order = list(range(len(shuffled)))
    for label in sorted(set().union(*held)):
        owners = [place for place, number in enumerate(order) if label in held[number]]
        if len(owners) < 2 or owners[0] < count:
            continue
        replaced = _least_missed([held[number] for number in order[:count]])
        order[replaced], order[owners[0]] = order[owners[0]], order[replaced]
    return [shuffled[number] for number in order]


def _least_missed(held: list[set[str]]) -> int:
    """The last of those with labels that others have, too; where there is none, the last."""
    for place in reversed(range(len(held))):
        others = set().union(*held[:place], *held[place + 1 :])
        if held[place] <= others:
            return place
    return len(held) - 1
