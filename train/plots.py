"""Parity plot and learning curve as PNG."""

import csv
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from train.metrics import SHOWN_UNITS, UNITS, Labels, compared, errors

SHOWN_NAMES = {
    "forces": "force component", "stress": "stress component", "energies": "energy of an atom", "charges": "charge",
    "dipole": "dipole component",
}  # fmt: skip
REFERENCE_COLOR, DATA_COLOR = "0.6", "tab:blue"
Curves = dict[str, tuple[np.ndarray, np.ndarray]]  # epochs and values, by what they are


def parity_plot(path: Path, predicted: Labels, reference: Labels, title: str) -> None:
    """Predicted against computed energies (relative to their mean), force components and whatever else there is.

    Energies of frames of different sizes are those of an atom.
    """
    panels = parity_panels(predicted, reference)
    if not panels:
        return  # nothing has a label
    figure = Figure(figsize=(4.5 * len(panels), 4.4), layout="constrained")
    figure.suptitle(title)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        draw_parity(axes, *panel)
    figure.savefig(path, dpi=150)


def draw_parity(axes: Axes, quantity: str, computed: np.ndarray, learnt: np.ndarray, caption: str) -> None:
    """Predicted against computed values of ``quantity``, and the line on which they are equal."""
    low, high = min(computed.min(), learnt.min()), max(computed.max(), learnt.max())
    axes.plot([low, high], [low, high], color=REFERENCE_COLOR, linewidth=1)
    axes.plot(computed, learnt, ".", color=DATA_COLOR, markersize=3, alpha=0.5, rasterized=True)
    axes.set_xlabel(f"computed {quantity}")
    axes.set_ylabel(f"predicted {quantity}")
    axes.set_title(caption, fontsize="medium")
    axes.set_aspect("equal", adjustable="box")


def parity_panels(predicted: Labels, reference: Labels) -> list[tuple[str, np.ndarray, np.ndarray, str]]:
    """Name, computed values, predicted values and caption of each quantity that both have, as far as it has labels."""
    test, panels = errors(predicted, reference), []
    for name in compared(predicted, reference):
        computed, learnt = getattr(reference, name), getattr(predicted, name)
        if name == "energy":
            panels.append(_energy_panel(computed, learnt, reference, test))
            continue
        error = test[f"{name}_mae_{UNITS[name]}"]
        caption = f"MAE {error:.{1 if name == 'forces' else 2}f} {SHOWN_UNITS[name]}"
        caption += f" = {test['stress_mae_GPa']:.3f} GPa" if name == "stress" else ""
        unit = SHOWN_UNITS[name].removeprefix("m")
        panels.append((f"{SHOWN_NAMES[name]} ({unit})", *_with_labels(computed, learnt), caption))
    return panels


def _energy_panel(
    computed: np.ndarray, learnt: np.ndarray, reference: Labels, test: dict
) -> tuple[str, np.ndarray, np.ndarray, str]:
    same_size = len(set(reference.num_atoms.tolist())) == 1
    divisor, unit = (1, "eV") if same_size else (reference.num_atoms, "eV/atom")
    energy = "energy_mae_meV" if same_size else "energy_mae_meV_per_atom"
    computed, learnt = _with_labels(computed / divisor, learnt / divisor)
    caption = f"MAE {test[energy]:.2f} m{unit}"
    return f"energy - mean ({unit})", computed - computed.mean(), learnt - computed.mean(), caption


def _with_labels(computed: np.ndarray, learnt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    present = ~np.isnan(computed)
    return computed[present], learnt[present]


def legend_above(axes: Axes) -> None:
    """A legend that covers no curve."""
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize="small")


def read_log(path: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs, from 1, and values of one quantity of a run's log, which leaves cells empty where nothing was measured.

    Version 0.1.0 counted them from 0.
    """
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    first = min((int(row["epoch"]) for row in rows), default=1)
    measured = [(int(row["epoch"]) + (first == 0), float(row[name])) for row in rows if row.get(name)]
    return np.array([epoch for epoch, _ in measured]), np.array([value for _, value in measured])


def validation_errors(log: Path) -> Curves:
    """Of the quantities that the log of a potential has."""
    curves = {f"{name} ({SHOWN_UNITS[name]})": read_log(log, f"val/{name}_mae_{unit}") for name, unit in UNITS.items()}
    return {label: curve for label, curve in curves.items() if len(curve[0])}


def learning_curve(path: Path, log: Path, errors: Curves, title: str) -> None:
    """Losses and validation ``errors`` on logarithmic scales, and the learning rate, against epochs."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    figure.suptitle(title)
    loss, error, rate = figure.subplots(1, 3)
    for name, label in (("train/loss", "training"), ("val/loss", "validation")):
        loss.plot(*read_log(log, name), label=label)
    loss.set_ylabel("loss (without a unit)")
    for label, curve in errors.items():
        error.plot(*curve, label=label)
    error.set_ylabel("mean absolute validation error")
    rate.plot(*read_log(log, "lr"), color=REFERENCE_COLOR)
    rate.set_ylabel("learning rate")
    for axes in (loss, error):
        axes.set_yscale("log")
        legend_above(axes)
    for axes in (loss, error, rate):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
