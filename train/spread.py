"""What a committee of potentials gives for a list of structures: the mean, and how far its members are apart."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch_geometric.data import Data

from pyg_cgconv.potential import Potential
from train.predictions import Prediction, predict_frames


@dataclass(frozen=True)
class Spread:
    """How far the members are apart for one structure of n atoms, all float64; deviations are divided by their number.

    Args:
        energy: standard deviation, eV.
        forces: (n,) root mean square distance of the members' forces on an atom from their mean, eV/Angstrom.
        stress: (3, 3) standard deviation, eV/Angstrom^3; None without a volume.
    """

    energy: float
    forces: np.ndarray
    stress: np.ndarray | None


def mean_and_spread(members: Sequence[Prediction]) -> tuple[Prediction, Spread]:
    """Of the members' predictions for one structure."""
    names = set.intersection(*(set(one.known()) for one in members))
    values = {name: np.stack([one.known()[name] for one in members]) for name in names}
    mean = Prediction(**{name: value.mean(axis=0) for name, value in values.items()})
    forces_spread = np.sqrt(values["forces"].var(axis=0).sum(axis=1))
    stress_spread = values["stress"].std(axis=0) if "stress" in values else None
    return mean, Spread(values["energy"].std(), forces_spread, stress_spread)


def predict_with_spread(
    potentials: Sequence[Potential], frames: Sequence[Data], batch_size: int
) -> Iterator[tuple[Prediction, Spread]]:
    """Mean and spread for each frame, in order; arguments as in :func:`train.predictions.predict_frames`.

    Args:
        potentials: two or more.
        frames: with neighbours within the largest of their cutoffs.

    Raises:
        ValueError: one of them has no energy.
    """
    for number, potential in enumerate(potentials):
        if "energy" not in (properties := potential.hyperparameters["properties"]):
            raise ValueError(f"model: the spread is that of energies and forces, but model {number} gives {properties}")
    each = [predict_frames(potential, frames, batch_size) for potential in potentials]
    return (mean_and_spread(members) for members in zip(*each, strict=True))
