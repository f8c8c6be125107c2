"""A trained potential in one file, for use without the training code.

The file is what pyg_cgconv.Potential.load and pyg_cgconv.ASECalculator read. It holds the averaged weights and says
which elements, units, data, errors and versions they belong to (Potential.metadata).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ase.data import chemical_symbols

from pyg_cgconv.potential import Potential
from train.outputs import refuse_existing, writing_to
from train.report import versions
from train.trained import ModelFile, load_trained, model_file, training_record

UNITS = {"length": "Angstrom", "energy": "eV", "forces": "eV/Angstrom", "stress": "eV/Angstrom^3"}


@dataclass(frozen=True)
class ExportOptions:
    """Export: what is written.

    Args:
        output: the file to write, such as ethanol.pt; an existing one is not overwritten.
        dtype: floating-point type that it will compute in (default: that of the training).
    """

    output: Path
    dtype: Literal["float32", "float64"] | None = None

    def __post_init__(self):
        refuse_existing("output", self.output)


OPTIONS = (ModelFile, ExportOptions)


def run(model: ModelFile, export: ExportOptions) -> dict:
    """Writes the file and returns the metadata in it."""
    potential = load_trained(model.model, **({} if export.dtype is None else {"dtype": export.dtype}))
    potential.metadata = describe(potential, model.model)
    with writing_to(export.output):
        potential.save(export.output)
    species = " ".join(potential.metadata["species"])
    print(
        f"{export.output}: {species}; cutoff {potential.cutoff} Angstrom, {potential.hyperparameters['dtype']}\n"
        f"use it: pyg_cgconv.ASECalculator({str(export.output)!r})"
    )
    return potential.metadata


def describe(potential: Potential, model: Path) -> dict:
    """What a user of the exported file should know, from the potential and from the run folder beside it."""
    hyperparameters: dict[str, Any] = potential.hyperparameters
    return {
        "species": [chemical_symbols[number] for number in hyperparameters["species"]],
        "units": UNITS,
        "source": model_file(model).name,
        "versions": versions(),
        "training": potential.metadata.get("training", training_record(model)),
    }
