"""Are these eV and Angstrom? Guesses from magnitudes, and from whether forces are slopes of energies.

Total energies say nothing: those of all electrons are thousands of eV for each atom, those of some codes are near zero.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from ase.data import covalent_radii
from ase.units import Bohr, GPa, Hartree, kcal, kJ, mol

from train.columns import has_label
from train.source_frames import SourceFrame

# Medians over frames of root mean squares. At 500 K molecules have forces of 1 eV/Angstrom, which are 23 kcal/mol/A.
LARGE_FORCES = 15.0
LARGE_STRESS = 1.0  # eV/Angstrom^3, 160 GPa
# Shortest distances relative to sums of covalent radii: 0.8 ... 1.2 of everything but noble gases.
DISTANCES_IN_BOHR, SHORT_DISTANCES = (1.6, 2.3), 0.4
# Frames whose distances are looked at: edges are most of a data set, which may be larger than the memory.
LOOKED_AT = 2_000
NOBLE_GASES = (2, 10, 18, 36, 54, 86)
# Of frames one after the other: energies against the work of the forces.
PAIRS, LONGEST_STEP, LEAST_CORRELATION, LIKELY = 8, 0.7, 0.9, (0.6, 1.6)
# Change of energy over work, if these are the units of energies and forces.
RATIOS = {
    "energies in kcal/mol": mol / kcal,
    "energies in kJ/mol": mol / kJ,
    "energies in Hartree": 1 / Hartree,
    "forces in kcal/mol/Angstrom": kcal / mol,
    "forces in kJ/mol/Angstrom": kJ / mol,
    "forces in Hartree/Bohr": Hartree / Bohr,
    "energies in Hartree and forces in Hartree/Bohr": 1 / Bohr,
    "gradients in place of forces, which have the other sign": -1.0,
}
SAME_RATIO = 1.2  # within this factor


def unlikely_units(sources: Sequence[SourceFrame]) -> Iterator[str]:
    """What is said of units that ``sources``, the frames of a training, probably do not have."""
    forces = median_size(sources, "forces")
    if forces > LARGE_FORCES:
        yield (
            f"forces are {forces:.0f} eV/Angstrom at the root mean square of a typical frame: are they in "
            "kcal/mol/Angstrom, or of structures far from any that occur? eV/Angstrom is expected"
        )
    stress = median_size(sources, "stress")
    if stress > LARGE_STRESS:
        yield (
            f"stresses are {stress:.3g} eV/Angstrom^3, {stress / GPa:.0f} GPa, at the root mean square of a typical "
            "frame: are they in GPa or kbar? eV/Angstrom^3 is expected"
        )
    yield from _unlikely_lengths(sources)
    yield from _unlikely_slopes(sources)


def median_size(sources: Sequence[SourceFrame], name: str) -> float:
    """Median over the frames with the label of its root mean square; 0 without any."""
    labelled = (source.frame for source in sources if has_label(source.frame, name))
    sizes = np.fromiter((frame[name].square().mean().sqrt().item() for frame in labelled), float)
    return float(np.median(sizes)) if len(sizes) else 0.0


def _unlikely_lengths(sources: Sequence[SourceFrame]) -> Iterator[str]:
    some = sources[:: math.ceil(len(sources) / LOOKED_AT) or 1]
    found = [ratio for source in some if (ratio := _shortest(source)) is not None]
    if len(found) < len(some) / 2:
        return
    typical = float(np.median(found))
    low, high = DISTANCES_IN_BOHR
    if low < typical < high:
        yield f"neighbours are {typical:.1f} times as far as bonds are long: are lengths in Bohr? Angstrom is expected"
    if typical < SHORT_DISTANCES:
        yield (
            f"neighbours are at {typical:.2f} of the lengths of bonds: are lengths in nm, or positions fractional? "
            "Angstrom is expected"
        )


def _shortest(source: SourceFrame) -> float | None:
    """The least distance of neighbours over the sum of their covalent radii; None where there are none."""
    frame = source.frame
    if not frame.num_edges or bool(np.isin(frame.z.numpy(), NOBLE_GASES).any()):
        return None
    start, end = frame.edge_index
    vectors = frame.pos[start] - frame.pos[end]
    if "cell" in frame:
        vectors = vectors + frame.edge_shift @ frame.cell[0]
    radii = covalent_radii[frame.z.numpy()]
    return float((vectors.norm(dim=1).numpy() / (radii[start.numpy()] + radii[end.numpy()])).min())


def _unlikely_slopes(sources: Sequence[SourceFrame]) -> Iterator[str]:
    """Forces that are no slopes of the energies, of frames of a trajectory, or of one structure that was shaken."""
    work, change, num_atoms = _steps(sources)
    if len(work) < PAIRS or not work.any() or not change.any():
        return
    ratio = float(work @ change / (work @ work))
    correlation = abs(float(work @ change)) / np.sqrt((work @ work) * (change @ change))
    if correlation < LEAST_CORRELATION or LIKELY[0] < ratio < LIKELY[1]:
        return
    guesses = [unit for unit, known in RATIOS.items() if _same(ratio, known)]
    if len(set(num_atoms)) == 1 and _same(ratio, 1 / num_atoms[0]):
        guesses.append("energies of an atom, not of the frame")
    guess = f": are these {' or '.join(guesses)}" if guesses else ": do they have different units"
    yield (
        f"energies of frames that follow each other change by {ratio:.3g} times what the forces say{guess}? eV and "
        "eV/Angstrom are expected"
    )


def _steps(sources: Sequence[SourceFrame]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Work of the forces, change of energy and number of atoms of each small step from a frame to the next of its file.

    To the second order the work of a step is its displacement times the mean of the forces before and after.
    """
    files: dict[str, int] = {}
    places = np.array([(files.setdefault(str(source.file), len(files)), source.number) for source in sources], np.int64)
    rank = np.argsort(np.argsort(list(files)))  # files come by name
    ordered = np.lexsort((places[:, 1], rank[places[:, 0]]))
    steps = (_step(before, after) for before, after in pairwise(sources[number] for number in ordered.tolist()))
    found = np.array([step for step in steps if step is not None]).reshape(-1, 3)
    return found[:, 0], found[:, 1], found[:, 2]


def _step(before: SourceFrame, after: SourceFrame) -> tuple[float, float, int] | None:
    """Work, change of energy and number of atoms; None where the frames do not follow each other."""
    a, b = before.frame, after.frame
    if after.file != before.file or not torch.equal(a.z, b.z) or not _same_cell(a, b):
        return None
    step = b.pos - a.pos
    if step.abs().max() > LONGEST_STEP or not all(has_label(f, n) for f in (a, b) for n in ("energy", "forces")):
        return None
    return -(step * (a.forces + b.forces) / 2).sum().item(), (b.energy - a.energy).item(), a.num_nodes


def _same_cell(a, b) -> bool:
    return ("cell" not in a and "cell" not in b) or bool((a.cell - b.cell).abs().max() < 1e-6)


def _same(ratio: float, known: float) -> bool:
    return 1 / SAME_RATIO < ratio / known < SAME_RATIO
