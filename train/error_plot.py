"""How errors of a potential are distributed, element by element."""

import numpy as np
from ase.data import chemical_symbols
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from train.frame_errors import frame_errors
from train.metrics import MEV_PER_EV, SHOWN_UNITS, Labels, compared, difference
from train.plots import DATA_COLOR, legend_above

BINS = 41
# Of the errors that a panel shows: a single frame that is far off would press all others into one bin.
SHOWN_PERCENT = 99.5


def error_figure(predicted: Labels, reference: Labels) -> Figure | None:
    """Histograms of the errors of energies, of force components on each element, and of all else that was learned.

    None if nothing has a label. Errors beyond the axes are counted in the last bins.
    """
    panels = [("energy error (meV/atom)", {"": frame_errors(predicted, reference).energy})]
    if predicted.forces is not None and reference.forces is not None:
        error = MEV_PER_EV * difference(predicted.forces, reference.forces)
        panels.append(("force error (meV/Å)", by_element(error, reference.numbers)))
    for name in compared(predicted, reference):
        if name not in ("energy", "forces"):
            error = MEV_PER_EV * difference(getattr(predicted, name), getattr(reference, name))
            panels.append((f"{name} error ({SHOWN_UNITS[name]})", {"": error.ravel()}))
    panels = [(label, known) for label, groups in panels if (known := only_numbers(groups))]
    if not panels:
        return None
    figure = Figure(figsize=(4 * len(panels), 3.4), layout="constrained")
    for axes, (label, groups) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        draw_histograms(axes, label, groups)
    return figure


def by_element(error: np.ndarray, numbers: np.ndarray | None) -> dict[str, np.ndarray]:
    """Of errors (atoms, 3) those on the atoms of each element, by its symbol."""
    if numbers is None:
        return {"": error.ravel()}
    return {chemical_symbols[z]: error[numbers == z].ravel() for z in np.unique(numbers).tolist()}


def only_numbers(groups: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``groups`` without what is not finite, and without those that hold nothing else."""
    finite = {name: values[np.isfinite(values)] for name, values in groups.items()}
    return {name: values for name, values in finite.items() if len(values)}


def draw_histograms(axes: Axes, label: str, groups: dict[str, np.ndarray]) -> None:
    """One histogram for each of ``groups``, on a logarithmic scale: the rare large errors are what one looks for."""
    limit = np.percentile(np.abs(np.concatenate(list(groups.values()))), SHOWN_PERCENT) or 1.0
    bins = np.linspace(-limit, limit, BINS).tolist()
    for name, values in groups.items():
        single = len(groups) == 1
        style = {"color": DATA_COLOR, "histtype": "stepfilled", "alpha": 0.8} if single else {"histtype": "step"}
        axes.hist(np.clip(values, -limit, limit), bins=bins, label=name, **style)
    axes.axvline(0, color="0.6", linewidth=1, zorder=0)
    axes.set_yscale("log")
    axes.yaxis.set_minor_locator(NullLocator())  # their labels would take half of the time of the plot
    axes.set_xlabel(label)
    axes.set_ylabel("number")
    if len(groups) > 1:
        legend_above(axes)
