"""What a potential gives for a list of structures."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Batch, Data
from tqdm import tqdm

from datasets.label_names import OF_ATOMS, item_shape
from pyg_cgconv.potential import Potential
from train.columns import num_atoms, values_of
from train.loss import QUANTITIES
from train.metrics import Labels

SECONDS_BEFORE_A_BAR = 2


@dataclass(frozen=True)
class Prediction:
    """What a potential says of one structure of n atoms, all float64.

    Args:
        energy: eV.
        forces: (n, 3) eV/Angstrom.
        stress: (3, 3) eV/Angstrom^3, positive where the structure wants to shrink; None without a volume. What it means
            of a cell that is not periodic in all directions is for the caller to know.
        energies: (n,) eV, of atoms, if they are asked for.
        charges: (n,) e, of a potential that has them.
        dipole: (3,) e Angstrom, likewise; None of a periodic structure.
    """

    energy: float | None = None
    forces: np.ndarray | None = None
    stress: np.ndarray | None = None
    energies: np.ndarray | None = None
    charges: np.ndarray | None = None
    dipole: np.ndarray | None = None

    def known(self) -> dict[str, Any]:
        """What there is, by name."""
        return {name: value for name in QUANTITIES if (value := getattr(self, name)) is not None}


def _prediction(found: dict[str, np.ndarray]) -> Prediction:
    dipole = found.pop("dipole", None)
    energy = found.pop("energy", None)
    return Prediction(
        energy=None if energy is None else float(energy),
        dipole=None if dipole is None or np.isnan(dipole).any() else dipole,
        **found,
    )


def has_volume(frame: Data) -> bool:
    """Whether the potential can be asked for a stress: there is a cell, periodic or not, that is not flat."""
    return "cell" in frame and bool(torch.linalg.det(frame.cell).abs() > 0)


def batches(frames: Sequence[Data], batch_size: int) -> Iterator[list[Data]]:
    """Up to ``batch_size`` frames at a time, in order, those with a volume apart from those without."""
    for _, group in groupby(frames, has_volume):
        alike = list(group)
        for first in range(0, len(alike), batch_size):
            yield alike[first : first + batch_size]


def predict_frames(
    potential: Potential, frames: Sequence[Data], batch_size: int, energies: bool = False
) -> Iterator[Prediction]:
    """One prediction for each frame, in order, with a progress bar in a terminal.

    Args:
        potential: on the device where it is to compute.
        frames: with ``z``, ``pos``, ``edge_index``, and of crystals ``edge_shift``, ``cell`` and ``pbc``: what
            :class:`pyg_cgconv.RadiusGraph` makes.
        batch_size: frames that are computed at a time.
        energies: whether those of atoms are wanted.

    Raises:
        ValueError: a frame holds an element that the potential does not know.
    """
    device, has_energy = potential.shift.device, "energy" in potential.hyperparameters["properties"]
    bar = tqdm(
        total=len(frames), unit=" frames", delay=SECONDS_BEFORE_A_BAR, disable=not sys.stderr.isatty(), leave=False
    )
    with bar:
        for batch in batches(frames, batch_size):
            graph = Batch.from_data_list(batch).to(device, non_blocking=True)
            stressed = has_energy and has_volume(batch[0])
            with torch.no_grad():  # not around a yield: whoever takes the predictions would have none either
                out = potential(graph, compute_stress=stressed, compute_energies=energies and has_energy)
            sizes = [frame.num_nodes for frame in batch]
            rows = {
                name: value.double().cpu().split(sizes) if name in OF_ATOMS else value.double().cpu()
                for name, value in out.items()
            }
            for i in range(len(batch)):
                yield _prediction({name: values[i].numpy() for name, values in rows.items()})
            bar.update(len(batch))


def as_labels(predictions: Sequence[Prediction], frames: Sequence[Data]) -> Labels:
    """``predictions`` of ``frames`` together; a stress is NaN where there is none, None if no frame has one."""
    sizes = num_atoms(frames)
    return Labels(
        **{name: _values_of(predictions, name, sizes) for name in QUANTITIES},
        num_atoms=sizes,
        numbers=values_of(frames, "z").numpy(),
    )


def _values_of(predictions: Sequence[Prediction], name: str, sizes: np.ndarray) -> np.ndarray | None:
    """The quantity ``name`` of all frames, NaN where one has none; None if no frame has it."""
    known = [prediction.known().get(name) for prediction in predictions]
    if all(value is None for value in known):
        return None
    missing = [np.full(item_shape(name, n), np.nan) for n in sizes.tolist()]
    return np.concatenate([m if v is None else np.reshape(v, m.shape) for v, m in zip(known, missing, strict=True)])
