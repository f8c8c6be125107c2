"""Parity plot and learning curve as PNG."""

import csv
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from train.metrics import Labels, errors

REFERENCE_COLOR, DATA_COLOR = "0.6", "tab:blue"


def parity_plot(path: Path, predicted: Labels, reference: Labels, title: str) -> None:
    """Predicted against computed energies (relative to their mean) and force components of the test frames."""
    test = errors(predicted, reference)
    mean_energy = reference.energy.mean()
    panels = (
        ("energy - mean (eV)", reference.energy - mean_energy, predicted.energy - mean_energy,
         f"MAE {test['energy_mae_meV']:.2f} meV"),
        ("force component (eV/Å)", reference.forces.ravel(), predicted.forces.ravel(),
         f"MAE {test['forces_mae_meV_per_A']:.1f} meV/Å"),
    )  # fmt: skip
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    figure.suptitle(title)
    for axes, (quantity, computed, learnt, caption) in zip(figure.subplots(1, 2), panels, strict=True):
        low, high = min(computed.min(), learnt.min()), max(computed.max(), learnt.max())
        axes.plot([low, high], [low, high], color=REFERENCE_COLOR, linewidth=1)
        axes.plot(computed, learnt, ".", color=DATA_COLOR, markersize=3, alpha=0.5, rasterized=True)
        axes.set_xlabel(f"computed {quantity}")
        axes.set_ylabel(f"predicted {quantity}")
        axes.set_title(caption, fontsize="medium")
        axes.set_aspect("equal", adjustable="box")
    figure.savefig(path, dpi=150)


def read_log(path: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and values of one quantity of Lightning's CSV log, which leaves cells empty where nothing was measured."""
    with open(path, newline="") as file:
        rows = [(row["epoch"], row[name]) for row in csv.DictReader(file) if row.get(name)]
    return np.array([int(epoch) + 1 for epoch, _ in rows]), np.array([float(value) for _, value in rows])


def learning_curve(path: Path, log: Path, title: str) -> None:
    """Losses and validation errors on logarithmic scales, and the learning rate, against epochs."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    figure.suptitle(title)
    loss, error, rate = figure.subplots(1, 3)
    for name, label in (("train/loss", "training"), ("val/loss", "validation")):
        loss.plot(*read_log(log, name), label=label)
    loss.set_ylabel("loss (mean squared error / rms force²)")
    loss.legend()
    error.plot(*read_log(log, "val/forces_mae_meV_per_A"), label="forces (meV/Å)")
    error.plot(*read_log(log, "val/energy_mae_meV"), label="energy (meV)")
    error.set_ylabel("mean absolute validation error")
    error.legend()
    rate.plot(*read_log(log, "lr"), color=REFERENCE_COLOR)
    rate.set_ylabel("learning rate")
    for axes in (loss, error, rate):
        axes.set_xlabel("epoch")
        axes.set_yscale("linear" if axes is rate else "log")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
