"""Errors of a trained model: energies, forces and stresses against reference values.

A run folder alone repeats the errors of its own test frames. Other frames come from --data, or are those of MD17 that
--md17 names. The results folder gets metrics.json, parity.png and report.html; the table is printed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from ase import Atoms
from torch_geometric.data import Data

from datasets.atoms_details import DEFAULT_HEAD
from datasets.atoms_reading import read_atoms
from datasets.atoms_stress import stress_of
from datasets.label_names import names_like, value_of
from pyg_cgconv.potential import Potential
from train.columns import with_label
from train.comparison import compare, table_of, write_comparison
from train.data import EVALUATION_BATCH_FACTOR, check_label_names, made_alike
from train.data_files import DataFiles
from train.frame_table import FrameTable
from train.frame_weights import leave_out_labels_without_weight, name_details
from train.md17 import MD17Options, read_splits
from train.metrics import Labels
from train.options import RunOptions, require_positive
from train.outputs import create_results_folder
from train.predictions import as_labels, predict_frames
from train.source_frames import name_places
from train.tasks import TASKS, parse_config
from train.trained import CONFIG, ComputeOptions, ModelFile, load_trained, run_folder, written_options

BATCH_SIZE = 32
STRESS_NAMES = ("stress", "virial")
OF_ENERGY = ("energy", "forces", "stress", "energies")  # what comes with an energy
LABEL_ARGUMENTS = (
    "labels", "energy_key", "forces_key", "stress_key", "virial_key", "energies_key", "charges_key", "dipole_key",
)  # fmt: skip
# Options of a run that ask for its machine, of which only the frames are wanted here.
ON_ANY_MACHINE = [
    *("--device", "auto", "--devices", "1", "--nodes", "1", "--capture", "auto"),
    *("--tensorboard", "false", "--wandb", "false", "--wandb_project", "null"),
]


@dataclass(frozen=True)
class ReferenceOptions:
    """Reference: what is compared.

    Args:
        labels: those of energy, forces, stress, energies (of atoms), charges and dipole that are compared, such as
            [energy]; default energy and forces, and stress if any frame of --data has it, and so charges and dipole of
            a model that gives them. What a frame lacks is not compared.
        energy_key: name of the energy in the files, eV (default: what ASE takes for the energy).
        forces_key: name of the forces, eV/Angstrom.
        stress_key: name of the stress, eV/Angstrom^3, positive where the structure wants to shrink.
        virial_key: name of the virial, eV, of which the stress is made, as -virial / volume (default: virial or
            virials).
        energies_key: name of the energies of atoms, eV.
        charges_key: name of the charges of atoms, e.
        dipole_key: name of the dipole, e Angstrom.
        md17: frames of MD17 instead of --data, such as --md17.root DIR --md17.molecule aspirin --md17.split 1.
        part: which of the frames that a run folder, or --md17, divides.
    """

    labels: tuple[Literal["energy", "forces", "stress", "energies", "charges", "dipole"], ...] | None = None
    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    virial_key: str | None = None
    energies_key: str | None = None
    charges_key: str | None = None
    dipole_key: str | None = None
    md17: MD17Options | None = None
    part: Literal["train", "validation", "test"] = "test"

    def __post_init__(self):
        if self.labels is not None:
            check_label_names(self.labels)


@dataclass(frozen=True)
class EvaluateOptions:
    """Results: where they go.

    Args:
        run_dir: folder for the results (default: runs/evaluate-<data>-<time>).
        batch_size: structures computed at a time (default: those of the run for its own frames, otherwise 32).
    """

    run_dir: Path | None = None
    batch_size: int | None = None

    def __post_init__(self):
        require_positive(self, "batch_size")


@dataclass(frozen=True)
class Frames:
    """What a model is compared with: frames with labels and neighbours, their name, and how their run computed them."""

    name: str
    frames: Sequence[Data]
    batch_size: int = BATCH_SIZE
    run: RunOptions | None = None


OPTIONS = (ModelFile, DataFiles, ReferenceOptions, EvaluateOptions, ComputeOptions)


def run(
    model: ModelFile, files: DataFiles, reference: ReferenceOptions, options: EvaluateOptions, compute: ComputeOptions
) -> dict:
    """Compares, prints and returns what is written to ``metrics.json``."""
    compute.use_threads()
    potential = load_trained(model.model, **compute.overrides)
    compared = read_frames(model.model, potential, files, reference)
    compared, potential = of_head(compared, potential, model.head)
    if compared.run is not None:  # so that sums are rounded as they were
        torch.set_num_threads(compute.threads or compared.run.threads or torch.get_num_threads())
        torch.set_float32_matmul_precision(compared.run.matmul_precision)
    made_alike(compared.frames)
    predicted = predicted_labels(
        potential.to(compute.torch_device), compared.frames, options.batch_size or compared.batch_size
    )
    return report(model.model, options, compared, predicted, potential)


def of_head(compared: Frames, potential: Potential, head: str | None) -> tuple[Frames, Potential]:
    """Frames with the number of their heads and the potential with all heads; or, with ``head``, that one and frames
    of it, or frames that name none.

    Raises:
        ValueError: there is no such head, or heads of frames are not known or not named.
    """
    heads = potential.hyperparameters["heads"]
    if heads is None and head is None and isinstance(compared.frames, FrameTable):
        return compared, potential  # frames of its training
    if heads is None or head is not None:
        alone = potential.with_head(head)
        kept = [frame for frame in compared.frames if head is None or head_of(frame, heads) in (head, DEFAULT_HEAD)]
        if not kept:
            raise ValueError(f"head={head!r}: none of the {len(compared.frames)} frames is of this head")
        for frame in kept:
            drop_head(frame)
        return replace(compared, frames=kept), alone
    for number, frame in enumerate(compared.frames):
        name = head_of(frame, heads)
        if name not in heads:
            raise ValueError(
                f"frame {number} has head={name!r}, but the heads of the potential are {', '.join(heads)}: name that "
                "of each frame in the files, or give one for all of them by --head"
            )
        drop_head(frame)
        frame.head = torch.tensor([heads.index(name)])
    return compared, potential


def head_of(frame: Data, heads: Sequence[str]) -> str:
    """The name of the head of a frame of files, or of one that was trained on."""
    return heads[int(frame.head)] if "head" in frame else frame.get("head_name", DEFAULT_HEAD)


def drop_head(frame: Data) -> None:
    for name in ("head", "head_name"):
        if name in frame:
            del frame[name]


def read_frames(model: Path, potential: Potential, files: DataFiles, reference: ReferenceOptions) -> Frames:
    """The frames of the files, of MD17 or of the run of ``model``, from which ``potential`` is, as is asked for.

    Raises:
        ValueError: more than one is asked for, or none and the model lies in no run folder; or files hold elements that
            the potential does not know.
    """
    cutoff = potential.cutoff
    if files.data and reference.md17 is not None:
        raise ValueError("data and md17: give one of them")
    if files.data:
        keys = {name: getattr(reference, name) for name in LABEL_ARGUMENTS}
        keys["labels"] = compared_labels(potential, files, reference)
        name = ", ".join(path.name for path in files.data)
        dataset = files.read(cutoff, details=True, **keys)
        files.check_elements(dataset, potential)
        frames = list(dataset)
        name_details(frames)
        name_places(frames, files.data)
        leave_out_labels_without_weight(frames)
        return Frames(name, frames)
    if reference.md17 is not None:
        splits = read_splits(reference.md17, cutoff)
        return Frames(f"{splits.name}, {reference.part}", getattr(splits, reference.part))
    return frames_of_run(run_folder(model), cutoff, reference.part)


def compared_labels(potential: Potential, files: DataFiles, reference: ReferenceOptions) -> Sequence[str] | None:
    """The labels that are read of the files: those asked for, or what ``potential`` gives and a frame has; None for the
    usual ones of energies.

    Raises:
        ValueError: a label is asked for that ``potential`` does not give.
    """
    properties = potential.hyperparameters["properties"]
    given = [*(OF_ENERGY if "energy" in properties else ()), *properties]
    if lacking := [name for name in reference.labels or () if name not in given]:
        raise ValueError(f"labels: {', '.join(lacking)}: the model gives {', '.join(dict.fromkeys(given))} only")
    moments = [name for name in properties if name != "energy"]
    if reference.labels is not None or not moments:
        return reference.labels
    keys = {name: getattr(reference, f"{name}_key") for name in (*STRESS_NAMES, *moments)}
    images = [atoms for path in files.files for atoms in read_atoms(path, files.format)]
    found = [name for name in moments if any(may_have(atoms, name, keys[name]) for atoms in images)]
    if "energy" not in properties:
        return found or moments
    stressed = any(stress_of(atoms, keys, files.OPTION) is not None for atoms in images)
    return ["energy", "forces", *(["stress"] if stressed else []), *found] if found else None


def may_have(atoms: Atoms, name: str, key: str | None) -> bool:
    """Whether a frame has the label ``name``, or one that sounds like it, which then has to be named."""
    return value_of(atoms, name, key) is not None or (key is None and bool(names_like(atoms, name)))


def frames_of_run(folder: Path, cutoff: float, part: str) -> Frames:
    """One part of the frames that a run trained on, as its ``config.yaml`` names them, and its way to compute them."""
    config = folder / CONFIG
    task = written_options(config).get("task")
    if task not in TASKS:
        raise ValueError(
            f"model={str(folder)!r}: its {config.name} has task={task!r}, expected one of {', '.join(TASKS)}: add a "
            "line such as `task: md17`, or give --data FILE"
        )
    data, _, fit, *_, run = parse_config(task, config, *ON_ANY_MACHINE)
    splits = TASKS[task].read_splits(data, cutoff)
    return Frames(f"{splits.name}, {part}", getattr(splits, part), EVALUATION_BATCH_FACTOR * fit.batch_size, run)


def predicted_labels(potential: Potential, frames: Sequence[Data], batch_size: int) -> Labels:
    """What ``potential`` gives for ``frames``, energies of atoms only if they have such labels."""
    of_atoms = bool(with_label(frames, "energies").any())
    return as_labels(list(predict_frames(potential, frames, batch_size, of_atoms)), frames)


def report(model: Path, options: EvaluateOptions, compared: Frames, predicted: Labels, potential: Potential) -> dict:
    """Writes ``metrics.json``, plot and report, prints the table."""
    frames = compared.frames
    metrics, computed = compare(str(model), compared.name, frames, predicted, potential.hyperparameters)
    first_word = compared.name.replace(",", " ").split()[0]
    folder = create_results_folder(options.run_dir, "evaluate", Path(first_word).stem)
    write_comparison(folder, metrics, frames, predicted, computed)
    print(f"{table_of(metrics, frames, computed)}\n\nresults in {folder}", flush=True)
    return metrics
