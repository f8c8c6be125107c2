"""The results of a run as text and as JSON."""

import json
import platform
from pathlib import Path

from cuda_kernels.cache import installed_version

REPORTED_PACKAGES = ("pyg-cgconv", "torch", "torch-geometric", "e3nn", "numba", "numba-cuda", "lightning", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what comes out of a run."""
    found = {package: installed_version(package) for package in REPORTED_PACKAGES}
    return {"python": platform.python_version()} | {name: v for name, v in found.items() if v is not None}


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def describe_run(facts: dict, folder: Path) -> str:
    """What is about to be trained, before it starts."""
    frames = ", ".join(f"{count} {part}" for part, count in facts["frames"].items())
    return (
        f"{facts['data']}: {frames} frames\n"
        f"{facts['parameters']:,} parameters, {facts['dtype']}, {facts['device']}; results in {folder}"
    )


def error_table(metrics: dict, folder: Path) -> str:
    """Test errors beside the trivial baseline; ``of |F|`` is relative to the mean absolute force component."""
    mean_force = metrics["baseline"]["forces_mae_meV_per_A"]
    lines = [f"{'mean absolute test error':<28}{'energy':>14}{'forces':>18}{'of |F|':>12}"]
    for label, row in (("this potential", metrics["test"]), ("mean energy, zero force", metrics["baseline"])):
        energy, forces = row["energy_mae_meV"], row["forces_mae_meV_per_A"]
        lines.append(f"{label:<28}{energy:>10.2f} meV{forces:>12.2f} meV/Å{100 * forces / mean_force:>10.1f} %")
    effort = f"{metrics['epochs']} epochs, {metrics['steps']} steps in {metrics['seconds']:.0f} s"
    return "\n".join(["", *lines, "", f"{effort}; results in {folder}"])
