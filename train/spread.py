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
        charges: (n,) likewise, e; None unless all members have them.
        dipole: (3,) likewise, e Angstrom; None also of a periodic structure.
    """

    energy: float | None = None
    forces: np.ndarray | None = None
    stress: np.ndarray | None = None
    charges: np.ndarray | None = None
    dipole: np.ndarray | None = None


def mean_and_spread(members: Sequence[Prediction]) -> tuple[Prediction, Spread]:
    """Of the members' predictions for one structure."""
    names = set.intersection(*(set(one.known()) for one in members))
    values = {name: np.stack([one.known()[name] for one in members]) for name in names}
    mean = Prediction(**{name: value.mean(axis=0) for name, value in values.items()})
    spread = {name: value.std(axis=0) for name, value in values.items() if name not in ("forces", "energies")}
    if "forces" in values:
        spread["forces"] = np.sqrt(values["forces"].var(axis=0).sum(axis=1))
    return mean, Spread(**spread)


def predict_with_spread(
    potentials: Sequence[Potential], frames: Sequence[Data], batch_size: int, energies: bool = False
) -> Iterator[tuple[Prediction, Spread]]:
    """Mean and spread for each frame, in order, of what all ``potentials`` give; arguments as in
    :func:`train.predictions.predict_frames`.

    Args:
        potentials: two or more.
        frames: with neighbours within the largest of their cutoffs.

    Raises:
        ValueError: they have nothing in common.
    """
    properties = [potential.hyperparameters["properties"] for potential in potentials]
    if not set.intersection(*map(set, properties)):
        raise ValueError(f"model: expected models that give the same, but they give {properties}")
    each = [predict_frames(potential, frames, batch_size, energies) for potential in potentials]
    return (mean_and_spread(members) for members in zip(*each, strict=True))
