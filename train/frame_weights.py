"""How much frames count in the loss: by their file, and by their ``config_type``."""

from collections.abc import Mapping, Sequence

import torch
from torch_geometric.data import Data

from datasets.atoms_details import DEFAULT_CONFIG_TYPE, text_of
from train.loss import QUANTITIES


def name_details(frames: Sequence[Data]) -> None:
    """Makes ``config_type`` and ``head_name`` of ``frames`` of an :class:`datasets.AtomsFile` strings, in place."""
    for frame in frames:
        frame.config_type, frame.head_name = text_of(frame, "config_type"), text_of(frame, "head_name")


def weigh(frames: Sequence[Data], config_type_weights: Mapping[str, float] | None) -> None:
    """Multiplies the ``weight`` (1, 3) of each frame by that of its ``config_type``, in place.

    Raises:
        ValueError: there is a weight for a ``config_type`` that no frame has.
    """
    known = {frame.config_type for frame in frames}
    unknown = sorted(set(config_type_weights or ()) - known)
    if unknown:
        raise ValueError(
            f"config_type_weights: no frame has config_type {', '.join(map(repr, unknown))}; there are "
            f"{', '.join(map(repr, sorted(known)))}"
            + (f" ({DEFAULT_CONFIG_TYPE!r}: frames that name none)" if DEFAULT_CONFIG_TYPE in known else "")
        )
    for frame in frames:
        frame.weight = frame.weight * (config_type_weights or {}).get(frame.config_type, 1.0)


def drop_labels_without_weight(frames: Sequence[Data]) -> None:
    """Labels of weight 0 become NaN, as if they were missing, in place: MACE's files mark those that mean nothing so.

    Where all that is left weighs 1, frames lose their ``weight``: nothing is multiplied then.
    """
    for frame in frames:
        for name, weight in zip(QUANTITIES, frame.weight[0].tolist(), strict=True):
            if weight == 0 and name in frame:
                frame[name] = torch.full_like(frame[name], torch.nan)
        frame.weight = torch.where(frame.weight == 0, 1.0, frame.weight)
    if all(bool((frame.weight == 1).all()) for frame in frames):
        for frame in frames:
            del frame.weight
