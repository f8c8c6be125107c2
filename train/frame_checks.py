"""A look at frames before a training starts: what may be wrong is said in one line each, and nothing is refused."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from train.columns import has_label, selected
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
# Frames of whose energies the fit is made, and that are looked at together.
LOOKED_AT = 5_000


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
    once = each_once(sources)  # a file may serve for training and validation
    for check in checks if len(once) else ():
        for line in check(once):
            rank_zero_warn(line)


def each_once(sources: Sequence[SourceFrame]) -> Sequence[SourceFrame]:
    """The first of those with the same place."""
    files: dict[str, int] = {}
    places = np.array([(files.setdefault(str(source.file), len(files)), source.number) for source in sources], np.int64)
    _, first = np.unique(places.reshape(-1, 2), axis=0, return_index=True)
    return selected(sources, np.sort(first))


def net_forces(sources: Sequence[SourceFrame]) -> Iterator[str]:
    """Frames whose forces do not sum to zero, but for those in which atoms are held fixed and single atoms."""
    looked_at, found = 0, 0
    largest, place = 0.0, ""
    for source in sources:
        if source.constrained or source.frame.num_nodes == 1 or not has_label(source.frame, "forces"):
            continue
        looked_at += 1
        forces = source.frame.forces
        net = forces.sum(0).norm().item()
        if net > max(SMALL_NET_FORCE, NET_FORCE_PART * forces.norm().item()):
            found += 1
            largest, place = max((largest, place), (net, source.place))
    if found:
        yield (
            f"forces of {found} of {looked_at} frames do not sum to zero, the largest sum is {largest:.3g} "
            f"eV/Angstrom ({place}): a potential cannot learn what is left. Such forces are right only in a field, or "
            "if atoms are held fixed"
        )


def far_energies(sources: Sequence[SourceFrame]) -> Iterator[str]:
    """Frames whose energies lie far from a fit of energies of atoms, in which a few such frames count little."""
    known = selected(sources, np.array([has_label(source.frame, "energy") for source in sources], bool))
    if not len(known):
        return
    num_atoms = np.array([source.frame.num_nodes for source in known])
    energy = np.array([source.frame.energy.item() for source in known]) / num_atoms
    species = np.unique(np.concatenate([np.unique(source.frame.z) for source in known]))
    if len(known) < FRAMES_FOR_EACH_ELEMENT * len(species):
        return
    blocks = [known[first : first + LOOKED_AT] for first in range(0, len(known), LOOKED_AT)]
    fitted_to = with_each_element(np.concatenate([part_of_species(block, species) > 0 for block in blocks]), LOOKED_AT)
    fitted = robust_fit(part_of_species(selected(known, fitted_to), species), energy[fitted_to])
    left = energy - np.concatenate([part_of_species(block, species) @ fitted for block in blocks])
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


def with_each_element(held: np.ndarray, count: int) -> np.ndarray:
    """Numbers of up to ``count`` frames, ascending: all if there are no more; else the first that have each element.

    Args:
        held: (frames, species) bool, which elements each frame has.
    """
    if len(held) <= count:
        return np.arange(len(held))
    return np.unique(np.concatenate([np.flatnonzero(column)[: max(1, count // held.shape[1])] for column in held.T]))


def part_of_species(sources: Sequence[SourceFrame], species: np.ndarray) -> np.ndarray:
    """Of the atoms of each frame, the part that is of each of ``species``, (frames, species)."""
    numbers = np.concatenate([source.frame.z.numpy() for source in sources])
    num_atoms = np.array([source.frame.num_nodes for source in sources])
    return composition(numbers, num_atoms, species) / num_atoms[:, None]


def wrong_charges(sources: Sequence[SourceFrame]) -> Iterator[str]:
    """Frames in which charges of atoms do not sum to the total charge, as those do that are learned."""
    known, wrong, largest = 0, 0, 0.0
    for source in sources:
        frame = source.frame
        if has_label(frame, "charges"):
            known += 1
            left = float(frame.charges.sum() - frame.get("charge", torch.zeros(1)).item())
            if abs(left) > CHARGE_ERROR:
                wrong += 1
                largest = max(largest, left, key=abs)
    if wrong:
        yield (
            f"charges of {wrong} of {known} frames do not sum to the total charge, they are up to {largest:+.2g} e "
            "off: what is left is not learned. Is the total charge another name than charge_key says?"
        )


def robust_fit(part: np.ndarray, energy: np.ndarray, rounds: int = 30) -> np.ndarray:
    """Energies (species,) of atoms that leave the least absolute error of ``energy`` (frames,), that of an atom, by
    ``part`` (frames, species)."""
    weight = np.ones_like(energy)
    for _ in range(rounds):
        root = np.sqrt(weight)
        fitted, *_ = np.linalg.lstsq(part * root[:, None], energy * root, rcond=None)
        weight = 1 / np.maximum(np.abs(energy - part @ fitted), 1e-6)
    return fitted
