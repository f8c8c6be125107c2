"""The table of models of MACE, NequIP and SevenNet: this project beside the packages' own ways.

Each package runs in a process of its own, because they set what is PyTorch's and not theirs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from .largest import largest
from .measure import machine
from .model_rows import Contenders, Setting, release
from .packages import GRAPHS, MODELS, OURS, REFERENCE, Package, load

NAMES = (*MODELS, *(name for names in MODELS.values() for name in names))
"""What can be asked for: packages, and single models."""
SIZES = {"cuda": [64, 1000, 4096], "cpu": [64]}
"""Atoms, where nobody says how many."""
TRAINED = [50] * 10
"""Atoms of the structures of a training step."""


def wanted(names: list[str]) -> dict[str, list[str]]:
    """The models that are asked for, of each package."""
    chosen = {
        package: [each for each in each_of if {package, each} & set(names)] for package, each_of in MODELS.items()
    }
    return {package: models for package, models in chosen.items() if models}


def measured(options: Namespace, arguments: list[str]) -> dict:
    """The report of the models of `options.models`; rows are printed and written as they come.

    Args:
        arguments: the command line that the options are from.
    """
    device = torch.device(options.device)
    report: dict = {"machine": machine(device), "rows": []}
    chosen = wanted(options.models)

    def add(rows: list[dict], printed: bool = False) -> None:
        report["rows"] += rows
        for row in rows:
            if not printed:
                print(line(row), flush=True)
        if options.json:
            Path(options.json).write_text(json.dumps(report, indent=1))

    if len(chosen) > 1:
        for package, models in chosen.items():
            _in_process(package, models, arguments, add)
        return report
    for package, models in chosen.items():
        for rows in _rows(package, models, options, device):
            add(rows)
    return report


def _in_process(package: str, models: list[str], arguments: list[str], add: Callable) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        own = ["--models", ",".join(models), "--json", str(file)]
        done = subprocess.run([sys.executable, "-m", "pyg_cgconv.benchmark", *arguments, *own])
        if file.exists():
            add(json.loads(file.read_text())["rows"], printed=True)
        if done.returncode:
            why = f"its process ended with {done.returncode}"
            add([{"model": "all others", "package": package, "peer": "all", "ms": {}, "missing": why}])


def _rows(package: str, models: list[str], options: Namespace, device: torch.device) -> Iterator[list[dict]]:
    """Rows of one package, as they come."""
    dtype = getattr(torch, options.dtype)
    try:
        loaded = load(package, dtype, device)
    except ImportError as error:
        common = {"package": package, "peer": "all", "dtype": options.dtype, "ms": {}, "missing": str(error)}
        yield [{"model": name} | common for name in models]
        return
    setting = Setting(options.seconds, options.profile)
    for name in models:
        common = {"model": name, "package": package, "dtype": options.dtype}
        contenders = Contenders(loaded, name, chosen_peers(loaded, options.peers))
        for sizes in [*([atoms] for atoms in options.sizes or SIZES[device.type]), TRAINED]:
            yield [common | row for row in contenders.rows(sizes, sizes is TRAINED, setting)]
        if options.largest:
            yield from ([common | row] for row in largest(contenders))
        del contenders
        release(device)


def chosen_peers(package: Package, peers: list[str]) -> list[str]:
    """This project and the package's own path are always compared."""
    always = REFERENCE, OURS, GRAPHS
    return [name for name in package.contenders() if name in always or name in peers]


def line(row: dict) -> str:
    """A row of the table."""
    cells = [f"{row['model']:14}"]
    if "atoms" in row:
        what = f"{row['structures']} x {row['atoms'] // row['structures']}"
        cells.append(f"{what:>9} atoms {row['edges']:9} edges")
    cells.append(f"{row['peer']:18}")
    for name, ms in row["ms"].items():
        cells.append(f"{name:17} {ms:10.3f} ms {row['us_per_atom']:9.2f} us/atom")
        cells.append(f"{row['ratio']:6.2f}x" if "ratio" in row else " " * 7)
    if row.get("memory_MB"):
        cells.append("memory " + " / ".join(f"{m:.0f}" for m in row["memory_MB"].values()) + " MB")
    if row.get("error"):
        cells.append("error " + ", ".join(f"{name} {error:.0e}" for name, error in row["error"].items()))
    if "stopped_by" in row:
        cells.append(f"the largest; stopped by {row['stopped_by']}")
    if "missing" in row:
        cells.append(f"did not run: {row['missing']}")
    text = "  ".join(cells).rstrip()
    if "parts" in row:
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in row["parts"].items())
        text += f"\n    {row['kernels_ms']:.3f} ms of kernels: {shares}"
    return text
