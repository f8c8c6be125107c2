"""A look at frames before a training starts: what may be wrong is said in one line each, and nothing is refused."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from train.data import has_label
from train.source_frames import SourceFrame
from train.statistics import composition
from train.unit_checks import unlikely_units

# Sums of forces that are smaller, in eV/Angstrom, are those of grids and convergence.
SMALL_NET_FORCE = 0.1
# As large a part of the root of the sum of squared forces: what independent errors of 5 % of each force would make.
NET_FORCE_PART = 0.05
# Energies of an atom beyond a fit, in eV and in median absolute deviations. Both must be exceeded: a cell under
# pressure is 1 eV off among others like it, and a crystal among perfect ones ten deviations of nearly nothing.
FAR_ENERGY, FAR_DEVIATIONS = 1.0, 10.0
CHARGE_ERROR = 0.05  # e: printed digits sum to less
FRAMES_FOR_EACH_ELEMENT = 5  # that a fit needs to tell outliers
SHOWN = 3


def warn_of_unlikely_frames(sources: Sequence[SourceFrame]) -> None:
    """Warns of what all frames of a training, in any part, say together or each by itself.

    Args:
        sources: with labels, NaN where there is none, and neighbour lists.
    """
    checks: tuple[Callable[[Sequence[SourceFrame]], Iterator[str]], ...] = (
        net_forces,
        far_energies,
        unlikely_units,
        wrong_charges,
    )
    once = list({source.place: source for source in sources}.values())  # a file may serve for training and validation
    for check in checks if once else ():
        for line in check(once):
            rank_zero_warn(line)


def net_forces(sources: Sequence[SourceFrame]) -> Iterator[str]:
    """Frames whose forces do not sum to zero, but for those in which atoms are held fixed and single atoms."""
    looked_at = [
        source
        for source in sources
        if not source.constrained and source.frame.num_nodes > 1 and has_label(source.frame, "forces")
    ]
    found = []
    for source in looked_at:
        net = source.frame.forces.sum(0).norm().item()
        if net > max(SMALL_NET_FORCE, NET_FORCE_PART * source.frame.forces.norm().item()):
            found.append((net, source.place))
    if found:
        largest, place = max(found)
        yield (
            f"forces of {len(found)} of {len(looked_at)} frames do not sum to zero, the largest sum is {largest:.3g} "
            f"eV/Angstrom ({place}): a potential cannot learn what is left. Such forces are right only in a field, or "
            "if atoms are held fixed"
        )


def far_energies(sources: Sequence[SourceFrame]) -> Iterator[str]:
    """Frames whose energies lie far from a fit of energies of atoms, in which a few such frames count little."""
    known = [source for source in sources if has_label(source.frame, "energy")]
    if not known:
        return
    numbers = torch.cat([source.frame.z for source in known]).numpy()
    num_atoms = np.array([source.frame.num_nodes for source in known])
    energy = torch.cat([source.frame.energy for source in known]).double().numpy()
    species = np.unique(numbers)
    if len(known) < FRAMES_FOR_EACH_ELEMENT * len(species):
        return
    left = robust_residual(composition(numbers, num_atoms, species) / num_atoms[:, None], energy / num_atoms)
    far = np.abs(left - np.median(left))
    limit = max(FAR_ENERGY, FAR_DEVIATIONS * float(np.median(far)))
    found = np.flatnonzero(far > limit)
    if len(found):
        worst = found[np.argsort(-far[found])][:SHOWN]
        named = ", ".join(f"{known[i].place} ({left[i]:+.1f} eV/atom)" for i in worst)
        yield (
            f"energies of {len(found)} of {len(known)} frames lie more than {limit:.1f} eV/atom from a fit of energies "
            f"of atoms: {named}{' and others' if len(found) > SHOWN else ''}. Look whether these calculations converged"
        )


def wrong_charges(sources: Sequence[SourceFrame]) -> Iterator[str]:
    """Frames in which charges of atoms do not sum to the total charge, as those do that are learned."""
    known = [source.frame for source in sources if has_label(source.frame, "charges")]
    left = [float(frame.charges.sum() - frame.get("charge", torch.zeros(1)).item()) for frame in known]
    wrong = [value for value in left if abs(value) > CHARGE_ERROR]
    if wrong:
        yield (
            f"charges of {len(wrong)} of {len(known)} frames do not sum to the total charge, they are up to "
            f"{max(wrong, key=abs):+.2g} e off: what is left is not learned. Is the total charge another name than "
            "charge_key says?"
        )


def robust_residual(part: np.ndarray, energy: np.ndarray, rounds: int = 30) -> np.ndarray:
    """What energies of an atom (frames,) are beyond a fit of least absolute error by ``part`` (frames, species)."""
    weight = np.ones_like(energy)
    for _ in range(rounds):
        root = np.sqrt(weight)
        fitted, *_ = np.linalg.lstsq(part * root[:, None], energy * root, rcond=None)
        left = energy - part @ fitted
        weight = 1 / np.maximum(np.abs(left), 1e-6)
    return left
