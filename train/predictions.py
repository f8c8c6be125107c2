"""Energies, forces and stresses that a potential gives for a list of structures."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch_geometric.data import Batch, Data
from tqdm import tqdm

from pyg_cgconv.potential import Potential

SECONDS_BEFORE_A_BAR = 2


@dataclass(frozen=True)
class Prediction:
    """What a potential says of one structure of n atoms, all float64.

    Args:
        energy: eV.
        forces: (n, 3) eV/Angstrom.
        stress: (3, 3) eV/Angstrom^3, positive where the structure wants to shrink; None without a volume. What it means
            of a cell that is not periodic in all directions is for the caller to know.
    """

    energy: float
    forces: np.ndarray
    stress: np.ndarray | None


def has_volume(frame: Data) -> bool:
    """Whether the potential can be asked for a stress: there is a cell, periodic or not, that is not flat."""
    return "cell" in frame and bool(torch.linalg.det(frame.cell).abs() > 0)


def batches(frames: Sequence[Data], batch_size: int) -> Iterator[list[Data]]:
    """Up to ``batch_size`` frames at a time, in order, those with a volume apart from those without."""
    for _, group in groupby(frames, has_volume):
        alike = list(group)
        for first in range(0, len(alike), batch_size):
            yield alike[first : first + batch_size]


def predict_frames(potential: Potential, frames: Sequence[Data], batch_size: int) -> Iterator[Prediction]:
    """One prediction for each frame, in order, with a progress bar in a terminal.

    Args:
        potential: on the device where it is to compute.
        frames: with ``z``, ``pos``, ``edge_index``, and of crystals ``edge_shift``, ``cell`` and ``pbc``: what
            :class:`pyg_cgconv.RadiusGraph` makes.
        batch_size: frames that are computed at a time.

    Raises:
        ValueError: a frame holds an element that the potential does not know.
    """
    device = potential.shift.device
    bar = tqdm(
        total=len(frames), unit=" frames", delay=SECONDS_BEFORE_A_BAR, disable=not sys.stderr.isatty(), leave=False
    )
    with bar:
        for batch in batches(frames, batch_size):
            graph = Batch.from_data_list(batch).to(device, non_blocking=True)
            stressed = has_volume(batch[0])
            with torch.no_grad():  # not around a yield: whoever takes the predictions would have none either
                out = potential(graph, compute_stress=stressed)
            out = {name: value.double().cpu() for name, value in out.items()}
            forces = out["forces"].split([frame.num_nodes for frame in batch])
            for i in range(len(batch)):
                stress = out["stress"][i].numpy() if stressed else None
                yield Prediction(out["energy"][i].item(), forces[i].numpy(), stress)
            bar.update(len(batch))
