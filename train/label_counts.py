"""How many frames have which label, for the log and for ``metrics.json``."""

from collections.abc import Mapping, Sequence

from torch_geometric.data import Data

from train.data import has_label, quantities_of

Counts = dict[str, dict[str, int]]  # frames with a label, by part and label


def count_labels(parts: Mapping[str, Sequence[Data]]) -> Counts:
    """Of each of ``parts``, how many frames have each label that any frame has."""
    names = quantities_of([frame for frames in parts.values() for frame in frames])
    return {
        part: {name: sum(has_label(frame, name) for frame in frames) for name in names}
        for part, frames in parts.items()
    }


def describe_labels(parts: Mapping[str, Sequence[Data]], consequence: str = ", nothing is learned of them") -> str:
    """A line for each of ``parts`` in which frames lack labels, such as ``training: forces: 80 of 100 frames``."""
    lines = []
    for part, counts in count_labels(parts).items():
        frames = parts[part]
        lacking = [f"{name}: {count} of {len(frames)} frames" for name, count in counts.items() if count < len(frames)]
        lines += [f"{part}: {', '.join(lacking)}"] if lacking else []
        bare = sum(not any(has_label(frame, name) for name in counts) for frame in frames)
        lines += [f"{part}: {bare} frames have no label at all{consequence}"] if bare else []
    return "\n".join(lines)
