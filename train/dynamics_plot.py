"""Energies of a molecular dynamics as PNG, what its ensemble keeps, and pressure and volume of a crystal."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from train.dynamics import EnergyLog
from train.metrics import MEV_PER_EV
from train.plots import REFERENCE_COLOR, legend_above


def energy_plot(
    path: Path, log: EnergyLog, title: str, temperature: float | None = None, pressure: float | None = None
) -> None:
    """Total, potential and kinetic energy against time; below, what should stay; of a crystal, pressure and volume.

    Args:
        path: the file to write.
        log: of all steps.
        title: above all.
        temperature: of the thermostat, K, with which the temperature is shown. Without one, the total energy should
            stay, and its change is shown.
        pressure: of the barostat, GPa, with which the pressure is shown.
    """
    crystal = hasattr(log.rows[0], "pressure_GPa")
    figure = Figure(figsize=(7, 9.5 if crystal else 5.5), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(4 if crystal else 2, 1, sharex=True)
    draw_energies(panels[0], log)
    if temperature is None:
        draw_change_of_total_energy(panels[1], log)
    else:
        draw_with_target(panels[1], log, "temperature_K", "temperature (K)", temperature, "thermostat, {:g} K")
    if crystal:
        draw_with_target(panels[2], log, "pressure_GPa", "pressure (GPa)", pressure, "barostat, {:g} GPa")
        draw_with_target(panels[3], log, "volume_A3", "volume (Å³)")
    panels[-1].set_xlabel("time (ps)")
    for axes in panels:
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


def draw_with_target(
    axes: Axes, log: EnergyLog, column: str, label: str, target: float | None = None, named: str = ""
) -> None:
    """A column of the log, and what the dynamics holds it at, if it does."""
    axes.plot(log.column("time_ps"), log.column(column), label=label.partition(" ")[0])
    axes.set_ylabel(label)
    if target is not None:
        axes.axhline(target, color=REFERENCE_COLOR, linestyle="--", label=named.format(target))
        legend_above(axes)
