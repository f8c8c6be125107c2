"""Predictions of frames beside their labels: errors, plot, report and table of ``evaluate`` and ``predict``."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch_geometric.data import Data

from train.data import labels
from train.html_report import write_report
from train.label_counts import describe_labels
from train.metrics import MEV_PER_EV, Labels, errors
from train.outputs import writing_to
from train.plots import parity_plot
from train.potential_report import evaluation_report
from train.report import error_rows, versions, write_json


def compare(
    model: str, data: str, frames: Sequence[Data], predicted: Labels, hyperparameters: Mapping
) -> tuple[dict, Labels]:
    """What is written to ``metrics.json``, and the labels of ``frames``.

    Args:
        model, data: what both are called.
        frames: alike, see :func:`train.data.made_alike`.
        predicted: what the model gives for them.
        hyperparameters: those of the potential.
    """
    computed = labels(frames, hyperparameters["heads"] or ())
    metrics = {
        "model": model,
        "data": data,
        "frames": len(frames),
        "dtype": hyperparameters["dtype"],
        "errors": errors(predicted, computed),
        "versions": versions(),
    }
    return metrics, computed


def write_comparison(folder: Path, metrics: dict, frames: Sequence[Data], predicted: Labels, computed: Labels) -> None:
    """``metrics.json``, ``parity.png`` and ``report.html``."""
    with writing_to(folder):
        write_json(folder / "metrics.json", metrics)
        parity_plot(folder / "parity.png", predicted, computed, title_of(metrics))
        write_report(folder, evaluation_report(folder, metrics, frames, predicted, computed))


def table_of(metrics: dict, frames: Sequence[Data], computed: Labels) -> str:
    """Errors as a table, below how many frames have which labels."""
    forces = computed.forces if computed.has("forces") else None
    mean_force = None if forces is None else MEV_PER_EV * float(np.nanmean(np.abs(forces)))
    counts = describe_labels({title_of(metrics): frames}, consequence="") or title_of(metrics)
    return f"{counts}\n\n{error_rows({'this potential': metrics['errors']}, mean_force)}"


def title_of(metrics: Mapping) -> str:
    return f"{metrics['data']}: {metrics['frames']} frames"
