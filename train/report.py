"""The results of a run as text and as JSON."""

import json
import platform
from collections.abc import Mapping
from pathlib import Path

from cuda_kernels.cache import installed_version
from train.metrics import SHOWN_UNITS, UNITS
from train.outputs import written_whole

REPORTED_PACKAGES = ("pyg-cgconv", "torch", "torch-geometric", "e3nn", "numba", "numba-cuda", "lightning", "numpy")
COLUMN = 16
# What an error is of: its name among the metrics and its unit.
COLUMNS = {
    "energy": ("energy_mae_meV", "meV"),
    "energy/atom": ("energy_mae_meV_per_atom", "meV"),
    **{name: (f"{name}_mae_{unit}", SHOWN_UNITS[name]) for name, unit in UNITS.items() if name != "energy"},
}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what comes out of a run."""
    found = {package: installed_version(package) for package in REPORTED_PACKAGES}
    return {"python": platform.python_version()} | {name: v for name, v in found.items() if v is not None}


def write_json(path: Path, content: dict) -> None:
    with written_whole(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2) + "\n")


def describe_run(facts: dict, folder: Path) -> str:
    """What is about to be trained, before it starts."""
    frames = ", ".join(f"{count} {part}" for part, count in facts["frames"].items())
    padding = facts.get("padding_percent")
    steps = "" if padding is None else f", steps as CUDA graphs ({padding:.0f} % of the edges are padding)"
    return (
        f"{facts['data']}: {frames} frames\n"
        f"{facts['parameters']:,} parameters, {facts['dtype']}, {facts['device']}{steps}; results in {folder}"
    )


def error_rows(rows: Mapping[str, dict], mean_force: float | None = None) -> str:
    """A table of mean absolute errors, one line for each of ``rows``; below it those of each element, config_type
    and head.

    Args:
        rows: results of :func:`train.metrics.errors` by what they are errors of.
        mean_force: mean absolute force component, meV/Angstrom, to which ``of |F|`` is relative; no such column
            without it, or if it is zero, as of isolated atoms and perfect crystals.
    """
    columns = {title: column for title, column in COLUMNS.items() if any(column[0] in row for row in rows.values())}
    relative = mean_force and "forces" in columns
    lines = [f"{'mean absolute error':<28}" + "".join(title.rjust(COLUMN) for title in columns)]
    lines[0] += "of |F|".rjust(10) if relative else ""
    for label, row in rows.items():
        by_species = {f"  on {symbol}": errors for symbol, errors in row.get("species", {}).items()}
        by_type = {f"  of {name}": errors for name, errors in row.get("config_types", {}).items()}
        by_head = {f"  head {name}": errors for name, errors in row.get("heads", {}).items()}
        for name, errors in {label: row, **by_species, **by_type, **by_head}.items():
            cells = "".join(_cell(errors, *column) for column in columns.values())
            lines.append(f"{name:<28}" + (cells if cells.strip() else "  no labels, or all of weight 0"))
            if relative and "forces_mae_meV_per_A" in errors:
                lines[-1] += f"{100 * errors['forces_mae_meV_per_A'] / mean_force:>8.1f} %"
    return "\n".join(line.rstrip() for line in lines)


def _cell(errors: dict, name: str, unit: str) -> str:
    return (f"{errors[name]:.2f} {unit}" if name in errors else "").rjust(COLUMN)


def trivial_model(baseline: Mapping) -> str:
    """What the model without physics says of which ``baseline`` are the errors."""
    return "energies of atoms, no forces" if "energy_mae_meV" in baseline else "zero"


def error_table(metrics: dict, folder: Path) -> str:
    """Test errors beside those of a trivial model; ``of |F|`` is relative to the mean absolute force component."""
    baseline = {
        name: value for name, value in metrics["baseline"].items() if name not in ("species", "config_types", "heads")
    }
    replay = {"this potential, old frames": metrics["replay"]} if "replay" in metrics else {}
    rows = {"this potential, test frames": metrics["test"]} | replay | {trivial_model(baseline): baseline}
    effort = f"{metrics['epochs']} epochs, {metrics['steps']} steps in {metrics['seconds']:.0f} s"
    return "\n".join(["", error_rows(rows, baseline.get("forces_mae_meV_per_A")), "", f"{effort}; results in {folder}"])
