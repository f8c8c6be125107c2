"""How many frames have which label, for the log and for ``metrics.json``."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch_geometric.data import Data

from train.columns import with_label
from train.data import quantities_of
from train.loss import QUANTITIES

Counts = dict[str, dict[str, int]]  # frames with a label, by part and label


def count_labels(parts: Mapping[str, Sequence[Data]]) -> Counts:
    """Of each of ``parts``, how many frames have each label that any frame has."""
    known = {part: quantities_of(frames) for part, frames in parts.items()}
    names = [name for name in QUANTITIES if any(name in found for found in known.values())]
    return {part: {name: int(with_label(frames, name).sum()) for name in names} for part, frames in parts.items()}


def describe_labels(parts: Mapping[str, Sequence[Data]], consequence: str = ", nothing is learned of them") -> str:
    """A line for each of ``parts`` in which frames lack labels, such as ``training: forces: 80 of 100 frames``."""
    lines = []
    for part, counts in count_labels(parts).items():
        frames = parts[part]
        lacking = [f"{name}: {count} of {len(frames)} frames" for name, count in counts.items() if count < len(frames)]
        lines += [f"{part}: {', '.join(lacking)}"] if lacking else []
        bare = len(frames) - int(np.logical_or.reduce([with_label(frames, name) for name in counts]).sum())
        lines += [f"{part}: {bare} frames have no label at all{consequence}"] if bare else []
    return "\n".join(lines)
