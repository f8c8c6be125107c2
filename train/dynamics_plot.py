"""Energies of a molecular dynamics as PNG, and what its ensemble keeps: total energy or temperature."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from train.dynamics import EnergyLog
from train.metrics import MEV_PER_EV
from train.plots import REFERENCE_COLOR, legend_above


def energy_plot(path: Path, log: EnergyLog, title: str, target: float | None = None) -> None:
    """Total, potential and kinetic energy against time; below, what should stay.

    Args:
        path: the file to write.
        log: of all steps.
        title: above all.
        target: temperature of the thermostat, K, with which the temperature is shown. Without one, the total energy
            should stay, and its change is shown.
    """
    figure = Figure(figsize=(7, 5.5), layout="constrained")
    figure.suptitle(title)
    energies, kept = figure.subplots(2, 1, sharex=True)
    draw_energies(energies, log)
    if target is None:
        draw_change_of_total_energy(kept, log)
    else:
        draw_temperature(kept, log, target)
    kept.set_xlabel("time (ps)")
    for axes in (energies, kept):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def draw_energies(axes: Axes, log: EnergyLog) -> None:
    time_ps, start = log.column("time_ps"), log.rows[0].potential_energy_eV
    axes.plot(time_ps, log.column("total_energy_eV") - start, label="total - E0")
    axes.plot(time_ps, log.column("potential_energy_eV") - start, label="potential - E0")
    axes.plot(time_ps, log.column("kinetic_energy_eV"), label="kinetic")
    axes.set_ylabel("energy (eV), E0 = potential at start")
    legend_above(axes)


def draw_change_of_total_energy(axes: Axes, log: EnergyLog) -> None:
    total = log.column("total_energy_eV")
    axes.plot(log.column("time_ps"), MEV_PER_EV * (total - total[0]))
    axes.set_ylabel("total - total at start (meV)")


def draw_temperature(axes: Axes, log: EnergyLog, target: float) -> None:
    axes.plot(log.column("time_ps"), log.column("temperature_K"), label="temperature")
    axes.axhline(target, color=REFERENCE_COLOR, linestyle="--", label=f"thermostat, {target:g} K")
    axes.set_ylabel("temperature (K)")
    legend_above(axes)
