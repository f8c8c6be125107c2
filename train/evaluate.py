"""Errors of a trained model: energies, forces and stresses against reference values.

A run folder alone repeats the errors of its own test frames. Other frames come from --data, or are those of MD17 that
--md17 names. The results folder gets metrics.json, parity.png and report.html; the table is printed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch_geometric.data import Data

from pyg_cgconv.potential import Potential
from train.data import EVALUATION_BATCH_FACTOR, labels, made_alike
from train.data_files import DataFiles
from train.frame_weights import drop_labels_without_weight, name_config_types
from train.html_report import write_report
from train.label_counts import describe_labels
from train.md17 import MD17Options, read_splits
from train.metrics import MEV_PER_EV, Labels, errors
from train.options import RunOptions, require_positive
from train.outputs import create_results_folder, writing_to
from train.plots import parity_plot
from train.potential_report import evaluation_report
from train.predictions import Prediction, predict_frames
from train.report import error_rows, versions, write_json
from train.source_frames import name_places
from train.tasks import TASKS, parse_config
from train.trained import CONFIG, ComputeOptions, ModelFile, load_trained, run_folder, written_options

BATCH_SIZE = 32
LABEL_ARGUMENTS = ("labels", "energy_key", "forces_key", "stress_key", "virial_key")
# Options of a run that ask for its machine, of which only the frames are wanted here.
ON_ANY_MACHINE = [
    *("--device", "auto", "--devices", "1", "--nodes", "1", "--capture", "auto"),
    *("--tensorboard", "false", "--wandb", "false", "--wandb_project", "null"),
]


@dataclass(frozen=True)
class ReferenceOptions:
    """Reference: what is compared.

    Args:
        labels: those of energy, forces and stress that are compared, such as [energy]; default energy and forces, and
            stress if any frame of --data has it. What a frame lacks is not compared.
        energy_key: name of the energy in the files, eV (default: what ASE takes for the energy).
        forces_key: name of the forces, eV/Angstrom.
        stress_key: name of the stress, eV/Angstrom^3, positive where the structure wants to shrink.
        virial_key: name of the virial, eV, of which the stress is made, as -virial / volume (default: virial or
            virials).
        md17: frames of MD17 instead of --data, such as --md17.root DIR --md17.molecule aspirin --md17.split 1.
        part: which of the frames that a run folder, or --md17, divides.
    """

    labels: tuple[Literal["energy", "forces", "stress"], ...] | None = None
    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    virial_key: str | None = None
    md17: MD17Options | None = None
    part: Literal["train", "validation", "test"] = "test"

    def __post_init__(self):
        if self.labels is not None and "energy" not in self.labels:
            raise ValueError(f"labels={list(self.labels)}: expected energy among them, errors of which come first")


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
    if compared.run is not None:  # so that sums are rounded as they were
        torch.set_num_threads(compute.threads or compared.run.threads or torch.get_num_threads())
        torch.set_float32_matmul_precision(compared.run.matmul_precision)
    made_alike(compared.frames)
    predicted = predicted_labels(
        potential.to(compute.torch_device), compared.frames, options.batch_size or compared.batch_size
    )
    return report(model.model, options, compared, predicted, potential)


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
        name = ", ".join(path.name for path in files.data)
        dataset = files.read(cutoff, details=True, **keys)
        files.check_elements(dataset, potential)
        frames = list(dataset)
        name_config_types(frames)
        name_places(frames, files.data)
        drop_labels_without_weight(frames)
        return Frames(name, frames)
    if reference.md17 is not None:
        splits = read_splits(reference.md17, cutoff)
        return Frames(f"{splits.name}, {reference.part}", getattr(splits, reference.part))
    return frames_of_run(run_folder(model), cutoff, reference.part)


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
    """What ``potential`` gives for ``frames``; a stress is NaN where there is none, None if no frame has one."""
    predictions = list(predict_frames(potential, frames, batch_size))
    return Labels(
        energy=np.array([prediction.energy for prediction in predictions]),
        forces=np.concatenate([prediction.forces for prediction in predictions]),
        num_atoms=np.array([frame.num_nodes for frame in frames]),
        stress=stacked_stress(predictions),
        numbers=torch.cat([frame.z for frame in frames]).numpy(),
    )


def stacked_stress(predictions: Sequence[Prediction]) -> np.ndarray | None:
    if all(prediction.stress is None for prediction in predictions):
        return None
    missing = np.full((3, 3), np.nan)
    return np.stack([missing if prediction.stress is None else prediction.stress for prediction in predictions])


def report(model: Path, options: EvaluateOptions, compared: Frames, predicted: Labels, potential: Potential) -> dict:
    """Writes ``metrics.json``, plot and report, prints the table."""
    computed = labels(compared.frames)
    found = errors(predicted, computed)
    metrics = {
        "model": str(model),
        "data": compared.name,
        "frames": len(compared.frames),
        "dtype": potential.hyperparameters["dtype"],
        "errors": found,
        "versions": versions(),
    }
    first_word = compared.name.replace(",", " ").split()[0]
    folder = create_results_folder(options.run_dir, "evaluate", Path(first_word).stem)
    title = f"{compared.name}: {len(compared.frames)} frames"
    with writing_to(folder):
        write_json(folder / "metrics.json", metrics)
        parity_plot(folder / "parity.png", predicted, computed, title)
        write_report(folder, evaluation_report(folder, metrics, compared.frames, predicted))
    forces = computed.forces if computed.has("forces") else None
    mean_force = None if forces is None else MEV_PER_EV * float(np.nanmean(np.abs(forces)))
    table = error_rows({"this potential": found}, mean_force)
    counts = describe_labels({title: compared.frames}) or title
    print(f"{counts}\n\n{table}\n\nresults in {folder}", flush=True)
    return metrics
