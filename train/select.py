"""The frames of a pool on which a committee of potentials is least sure: those to compute next by the reference.

Each frame is scored by how far the models are apart: by the forces on its worst atom, or by its energy. The results
folder gets selected.xyz, most uncertain first, remaining.xyz with the others in their order, and select.json with the
score of each frame. Frames whose predictions are no numbers or explode are named, and go to excluded.xyz. Structures
are written as the pool has them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from ase import Atoms

from datasets import AtomsFile
from pyg_cgconv.potential import Potential
from train.data_files import StructureFiles
from train.metrics import MEV_PER_EV
from train.near_duplicates import Distinct
from train.options import require_at_least_zero, require_positive
from train.outputs import create_results_folder, writing_to
from train.predict import read_structures, write_structures
from train.predictions import Prediction
from train.report import versions, write_json
from train.spread import Spread, predict_with_spread
from train.trained import ComputeOptions, ModelFiles

SHOWN = 10  # excluded frames that are named on the screen; the file has all


@dataclass(frozen=True)
class PoolFiles(StructureFiles):
    """Pool: the frames to choose from.

    Args:
        pool: the files.
        format: ASE's name of their format, such as extxyz or vasp-xdatcar (default: told by name and content).
        num_workers: processes that look for neighbours; 0 does it in this one.
    """

    OPTION: ClassVar[str] = "pool"
    HELP: ClassVar[str] = "files of structures, labelled or not: extended XYZ, or any other that ASE reads"

    pool: Sequence[Path] = ()


@dataclass(frozen=True)
class SelectOptions:
    """Select: how many and which.

    Args:
        number: frames to select.
        by: forces scores a frame by the atom on whose force the models differ most, energy by the energy per atom.
        min_difference: Angstrom. A frame is passed over if one that is selected already has the same atoms, and
            distances to their nearest neighbours that differ by less than this (root mean square); 0 passes over none.
        max_force: eV/Angstrom. A frame with a predicted force or a spread above this is excluded, such as one with
            atoms that have collided.
        batch_size: structures computed at a time; fewer take less memory.
        run_dir: folder for the results (default: runs/select-<pool>-<time>).
    """

    number: int
    by: Literal["forces", "energy"] = "forces"
    min_difference: float = 0.02
    max_force: float = 100.0
    batch_size: int = 32
    run_dir: Path | None = None

    def __post_init__(self):
        require_positive(self, "number", "max_force", "batch_size")
        require_at_least_zero(self, "min_difference")


OPTIONS = (ModelFiles, PoolFiles, SelectOptions, ComputeOptions)


@dataclass
class Frame:
    """One frame of the pool, and what becomes of it: a row of ``select.json``.

    Args:
        file, frame: where it is, counted from 0.
        forces_spread: of its worst atom, eV/Angstrom; None where it is no number, as is the next.
        energy_spread: meV per atom.
        status: selected, remaining, duplicate (which remains, too) or excluded.
        rank: among those that are selected, from 1.
        reason: why it is excluded, or of which frame of which file it is a duplicate.
    """

    file: str
    frame: int
    atoms: int
    forces_spread_eV_per_A: float | None
    energy_spread_meV_per_atom: float | None
    status: Literal["selected", "remaining", "duplicate", "excluded"] = "remaining"
    rank: int | None = None
    reason: str = ""

    def score(self, by: str) -> float:
        """NaN never occurs: such a frame is excluded."""
        return (self.forces_spread_eV_per_A if by == "forces" else self.energy_spread_meV_per_atom) or 0.0


def run(models: ModelFiles, pool: PoolFiles, options: SelectOptions, compute: ComputeOptions) -> dict:
    """Chooses the frames, writes them, and returns what is written to ``select.json``."""
    if len(models.model) < 2:
        raise ValueError(f"model: got {len(models.model)}, expected two or more, whose spread tells what they know")
    compute.use_threads()
    potentials = models.load(compute)
    for number, potential in enumerate(potentials):
        if "energy" not in (properties := potential.hyperparameters["properties"]):
            raise ValueError(
                f"model: frames are selected by the spread of forces or energies, but {models.model[number]} gives "
                f"{', '.join(properties)} only"
            )
    cutoff = max(potential.cutoff for potential in potentials)
    structures = read_pool(pool, potentials, cutoff)
    folder = create_results_folder(options.run_dir, "select", pool.pool[0].stem)
    with writing_to(folder):
        frames = scored(pool, structures, potentials, options)
        choose(frames, structures, cutoff, options)
        write_frames(folder, frames, read_structures(structures.files, pool.format))
        summary = {
            "options": {name: str(v) if isinstance(v, Path) else v for name, v in asdict(options).items()},
            "models": [str(model) for model in models.model],
            "counts": dict(Counter(frame.status for frame in frames)),
            "frames": [asdict(frame) for frame in frames],
            "versions": versions(),
        }
        write_json(folder / "select.json", summary)
    print(describe(frames, options, folder), flush=True)
    return summary


def read_pool(pool: PoolFiles, potentials: Sequence[Potential], cutoff: float) -> AtomsFile:
    """The structures of the pool with their neighbours.

    Raises:
        ValueError: a file cannot be read, or a structure has elements that one of the potentials does not know.
    """
    structures = pool.read(cutoff, labels=())
    for potential in potentials:
        pool.check_elements(structures, potential)
    return structures


def scored(
    pool: PoolFiles, structures: AtomsFile, potentials: Sequence[Potential], options: SelectOptions
) -> list[Frame]:
    """All frames with their scores; those with values that cannot be are excluded."""
    places = [(str(file), number) for file in pool.files for number in range(len(pool.single(file)))]
    predictions = predict_with_spread(potentials, structures, options.batch_size)
    frames = []
    for place, (mean, spread) in zip(places, predictions, strict=True):
        assert spread.energy is not None  # of models with an energy
        assert spread.forces is not None
        energy = MEV_PER_EV * spread.energy / max(1, len(spread.forces))
        worst = spread.forces.max(initial=0.0)
        frame = Frame(*place, len(spread.forces), finite(worst), finite(energy))
        frame.reason = fault(mean, spread, options.max_force)
        frame.status = "excluded" if frame.reason else "remaining"
        frames.append(frame)
    return frames


def finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def fault(mean: Prediction, spread: Spread, max_force: float) -> str:
    """What is wrong with the predictions of a frame; empty if nothing is."""
    assert mean.energy is not None
    assert mean.forces is not None
    assert spread.forces is not None
    if not (np.isfinite(mean.energy) and np.isfinite(mean.forces).all()):
        return "energy or forces are not finite"
    largest = np.linalg.norm(mean.forces, axis=1).max(initial=0.0)
    if largest > max_force:
        return f"a force of {largest:.3g} eV/Angstrom, above max_force={max_force:g}"
    if spread.forces.max(initial=0.0) > max_force:
        return f"models differ by {spread.forces.max():.3g} eV/Angstrom, above max_force={max_force:g}"
    return ""


def choose(frames: list[Frame], structures: AtomsFile, cutoff: float, options: SelectOptions) -> None:
    """Selects the most uncertain frames, but none that is nearly the same as a more uncertain one."""
    candidates = [number for number, frame in enumerate(frames) if frame.status != "excluded"]
    distinct, rank = Distinct(options.min_difference), 0
    for number in sorted(candidates, key=lambda number: -frames[number].score(options.by)):  # the earlier of equals
        if rank == options.number:
            return
        frame, other = frames[number], distinct.duplicate_of(number, structures[number], cutoff)
        if other is None:
            rank += 1
            frame.status, frame.rank = "selected", rank
        else:
            frame.status, frame.reason = "duplicate", f"of frame {frames[other].frame} of {frames[other].file}"


def write_frames(folder: Path, frames: Sequence[Frame], structures) -> None:
    """Each structure to the file of its frame's status; none of it is changed."""
    chosen: list[tuple[int, Atoms]] = []
    excluded: list[Atoms] = []

    def remaining():
        for frame, atoms in zip(frames, structures, strict=True):
            if frame.rank is not None:
                chosen.append((frame.rank, atoms))
            elif frame.status == "excluded":
                excluded.append(atoms)
            else:
                yield atoms

    write_structures(folder / "remaining.xyz", remaining())
    write_structures(folder / "selected.xyz", (atoms for _, atoms in sorted(chosen, key=lambda pair: pair[0])))
    if excluded:
        write_structures(folder / "excluded.xyz", excluded)


def describe(frames: Sequence[Frame], options: SelectOptions, folder: Path) -> str:
    """What was chosen, for a person."""
    of = {status: [frame for frame in frames if frame.status == status] for status in ("selected", "excluded")}
    duplicates = sum(frame.status == "duplicate" for frame in frames)
    unit = "eV/Angstrom on the worst atom" if options.by == "forces" else "meV/atom"
    scores = [frame.score(options.by) for frame in of["selected"]] or [0.0]
    chosen = f"{len(of['selected'])} of {len(frames)} frames selected"
    lines = [f"{chosen}; their spread is {min(scores):.3g} to {max(scores):.3g} {unit}"]
    if duplicates:
        lines.append(f"{duplicates} frames passed over as near duplicates of more uncertain ones")
    if len(of["selected"]) < options.number:
        lines.append(f"number={options.number}: no more frames are left that can be selected")
    lines += [f"excluded: frame {frame.frame} of {frame.file}: {frame.reason}" for frame in of["excluded"][:SHOWN]]
    if len(of["excluded"]) > SHOWN:
        lines.append(f"excluded: {len(of['excluded']) - SHOWN} more, see select.json")
    return "\n".join([*lines, f"results in {folder}"])
