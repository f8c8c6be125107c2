"""Histograms of what is in a set of structures, as an image."""

from pathlib import Path

import numpy as np

from datasets.spread import Statistics

BINS = 60
COLUMNS = 3


def plot(path: str | Path, found: Statistics, title: str) -> None:
    """Writes a histogram of each quantity, and the atoms of each element, to ``path``: a PNG, or what its suffix says.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: matplotlib does not know the suffix.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            f"plots need matplotlib, which cannot be imported ({error}): pip install matplotlib"
        ) from error
    rows = -(-(1 + len(found.values)) // COLUMNS)
    figure = Figure(figsize=(4 * COLUMNS, 0.6 + 2.8 * rows), layout="constrained")
    figure.suptitle(title)
    elements, *others = figure.subplots(rows, COLUMNS, squeeze=False).flat
    elements.bar(list(found.elements), list(found.elements.values()))
    elements.set(xlabel="element", ylabel="atoms")
    for axes, (name, values) in zip(others, found.values.items(), strict=False):
        unit = found.quantities[name].unit
        axes.hist(values, bins=bins_of(values), histtype="stepfilled")
        axes.set(xlabel=f"{name} ({unit})" if unit else name, ylabel="number")
        axes.set_yscale("log" if "component" in name else "linear")
    for axes in others[len(found.values) :]:
        axes.set_axis_off()
    figure.savefig(path, dpi=150)


def bins_of(values: np.ndarray) -> int | np.ndarray:
    """One for each number where they are few whole numbers."""
    least, most = values.min(), values.max()
    if (values == values.round()).all() and most - least < 2 * BINS:
        return np.arange(least - 0.5, most + 1)
    return BINS
