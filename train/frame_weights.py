"""How much frames count in the loss: by their file, and by their ``config_type``."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from datasets.atoms_details import DEFAULT_CONFIG_TYPE, text_of
from train.frame_table import FrameColumns
from train.loss import QUANTITIES


def name_details(frames: Sequence[Data]) -> None:
    """Makes ``config_type`` and ``head_name`` of ``frames`` of an :class:`datasets.AtomsFile` strings, in place."""
    for frame in frames:
        frame.config_type, frame.head_name = text_of(frame, "config_type"), text_of(frame, "head_name")


def weights_of(columns: FrameColumns, config_type_weights: Mapping[str, float] | None) -> Tensor:
    """The ``weight`` (rows, labels) that each frame has in its file, times that of its ``config_type``.

    Raises:
        ValueError: there is a weight for a ``config_type`` that no frame has.
    """
    codes, known = columns.texts["config_type"]
    factors = config_type_weights or {}
    unknown = sorted(set(factors) - set(known))
    if unknown:
        raise ValueError(
            f"config_type_weights: no frame has config_type {', '.join(map(repr, unknown))}; there are "
            f"{', '.join(map(repr, sorted(known)))}"
            + (f" ({DEFAULT_CONFIG_TYPE!r}: frames that name none)" if DEFAULT_CONFIG_TYPE in known else "")
        )
    weight = columns.values["weight"].clone()
    if factors:
        weight *= torch.tensor([factors.get(name, 1.0) for name in known], dtype=weight.dtype)[codes][:, None]
    return weight


def drop_labels_without_weight(columns: FrameColumns, weight: Tensor, rows: np.ndarray) -> None:
    """Labels of ``weight`` 0 become NaN, as if they were missing: MACE's files mark those that mean nothing so.

    Where all that is left of ``rows`` weighs 1, frames have no ``weight``: nothing is multiplied then.

    Args:
        weight: (rows, labels); it is changed.
    """
    without = weight == 0
    for number, name in enumerate(QUANTITIES):
        if without[:, number].any():
            columns.without_label[name] = without[:, number].numpy().copy()
    weight[without] = 1.0
    if bool((weight == 1)[torch.from_numpy(rows)].all()):
        columns.left_out.add("weight")
    else:
        columns.given["weight"] = weight


def leave_out_labels_without_weight(frames: Sequence[Data]) -> None:
    """The same of ``frames`` with their own ``weight`` (1, labels), in place."""
    for frame in frames:
        for name, weight in zip(QUANTITIES, frame.weight[0].tolist(), strict=True):
            if weight == 0 and name in frame:
                frame[name] = torch.full_like(frame[name], torch.nan)
        del frame.weight
