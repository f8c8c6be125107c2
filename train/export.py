"""A trained potential in one file, for use without the training code.

The file is what pyg_cgconv.Potential.load and pyg_cgconv.ASECalculator read. It holds the averaged weights and says
which elements, units, data, errors and versions they belong to (Potential.metadata). With --head it has that head
only. With --format lammps it is what LAMMPS reads as `pair_style mliap unified FILE 0`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ase.data import chemical_symbols

from pyg_cgconv.potential import LAMMPS_SUFFIXES, LAMMPSPotential, Potential
from train.outputs import refuse_existing, writing_to
from train.report import versions
from train.trained import ModelFile, load_trained, model_file, training_record, with_chosen_head

UNITS = {"length": "Angstrom", "energy": "eV", "forces": "eV/Angstrom", "stress": "eV/Angstrom^3"}
MOMENT_UNITS = {"charges": "e", "dipole": "e Angstrom"}


@dataclass(frozen=True)
class ExportOptions:
    """Export: what is written.

    Args:
        output: the file to write, such as ethanol.pt; an existing one is not overwritten.
        dtype: floating-point type that it will compute in (default: that of the training).
        format: potential, or lammps for LAMMPS with ML-IAP, whose file ends in .pt.
    """

    output: Path
    dtype: Literal["float32", "float64"] | None = None
    format: Literal["potential", "lammps"] = "potential"

    def __post_init__(self):
        if self.format == "lammps" and self.output.suffix not in LAMMPS_SUFFIXES:
            raise ValueError(
                f"output={str(self.output)!r}: LAMMPS reads files that end in {' or '.join(LAMMPS_SUFFIXES)}"
            )
        refuse_existing("output", self.output)


OPTIONS = (ModelFile, ExportOptions)


def run(model: ModelFile, export: ExportOptions) -> dict:
    """Writes the file and returns the metadata in it."""
    potential = load_trained(model.model, **({} if export.dtype is None else {"dtype": export.dtype}))
    if model.head is not None or export.format == "lammps":  # a file of ours keeps all heads
        potential = with_chosen_head(potential, model.head)
    potential.metadata = describe(potential, model.model)
    species, use = " ".join(potential.metadata["species"]), "pyg_cgconv.ASECalculator({!r})"
    file: Potential | LAMMPSPotential = potential
    if export.format == "lammps":
        file = LAMMPSPotential(potential)
        use = f"pair_style mliap unified {{}} 0\n        pair_coeff * * {species}  # those of your atom types, in order"
    with writing_to(export.output):
        file.save(export.output)
    heads = f"; heads {', '.join(potential.hyperparameters['heads'])}" if potential.hyperparameters["heads"] else ""
    print(
        f"{export.output}: {species}{heads}; cutoff {potential.cutoff} Angstrom, {potential.hyperparameters['dtype']}\n"
        f"use it: {use.format(str(export.output))}"
    )
    return potential.metadata


def describe(potential: Potential, model: Path) -> dict:
    """What a user of the exported file should know, from the potential and from the run folder beside it."""
    hyperparameters: dict[str, Any] = potential.hyperparameters
    return {
        "species": [chemical_symbols[number] for number in hyperparameters["species"]],
        **({"heads": hyperparameters["heads"]} if hyperparameters["heads"] else {}),
        "units": UNITS | {name: unit for name, unit in MOMENT_UNITS.items() if name in hyperparameters["properties"]},
        "source": model_file(model).name,
        "versions": versions(),
        "training": potential.metadata.get("training", training_record(model)),
    }
