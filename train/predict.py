"""Predicted energies, forces and stresses of structures in a file, as extended XYZ.

The output holds the structures of all files in order, with energy (eV), forces (eV/Angstrom) and, where all directions
are periodic, stress (eV/Angstrom^3) as ASE reads them; and with charges (e) and, of molecules, dipole (e Angstrom), if
the model has them. What the input had under these names is kept as ref_energy, ref_forces, ref_stress ...; all else it
had is kept as it was. Several models are a committee: values are their mean, and
energy_std (eV), forces_std (of each atom, eV/Angstrom), stress_std, charges_std and dipole_std say how far they are
apart.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import ase.io
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import per_atom_properties
from ase.stress import full_3x3_to_voigt_6_stress

from datasets.label_names import OF_ATOMS
from train.data_files import DataFiles
from train.options import require_positive
from train.outputs import refuse_existing
from train.predictions import Prediction, predict_frames
from train.spread import Spread, predict_with_spread
from train.trained import ComputeOptions, ModelFiles

PREDICTED = ("energy", "free_energy", "forces", "stress")
SPREAD = ("energy", "forces", "stress", "charges", "dipole")  # with _std, how far members are apart
REFERENCE_PREFIX = "ref_"
EXTENDED_XYZ = (".xyz", ".extxyz")


@dataclass(frozen=True)
class PredictOptions:
    """Predict: what is written.

    Args:
        output: the extended XYZ to write; an existing one is not overwritten.
        batch_size: structures computed at a time; fewer take less memory.
        energies: write energies of atoms, too.
    """

    output: Path
    batch_size: int = 32
    energies: bool = False

    def __post_init__(self):
        require_positive(self, "batch_size")
        if self.output.suffix not in EXTENDED_XYZ:
            raise ValueError(f"output={str(self.output)!r}: expected a name that ends in .xyz, extended XYZ is written")
        refuse_existing("output", self.output)


OPTIONS = (ModelFiles, DataFiles, PredictOptions, ComputeOptions)


def run(models: ModelFiles, files: DataFiles, options: PredictOptions, compute: ComputeOptions) -> dict:
    """Writes the file and returns how many frames are in it."""
    compute.use_threads()
    potentials = models.load(compute)
    frames = files.read(max(potential.cutoff for potential in potentials), labels=())
    for potential in potentials:
        files.check_elements(frames, potential)
    structures = read_structures(frames.files, files.format)
    if len(potentials) > 1:
        predictions: Iterable = predict_with_spread(potentials, frames, options.batch_size, options.energies)
    else:
        each = predict_frames(potentials[0], frames, options.batch_size, options.energies)
        predictions = ((prediction, None) for prediction in each)
    labelled = (with_prediction(atoms, *found) for atoms, found in zip(structures, predictions, strict=True))
    written = write_structures(options.output, labelled)
    spread = f", and the spread of {len(potentials)} models" if len(potentials) > 1 else ""
    of_each = [potential.hyperparameters["properties"] for potential in potentials]
    properties = [name for name in of_each[0] if all(name in others for others in of_each)]
    has_energy = "energy" in properties
    named = ", ".join(["energy", "forces", *properties[1:]] if has_energy else properties)
    named += " and, of crystals, stress" if has_energy else ""
    print(f"{options.output}: {written} frames with {named} (eV, e, Angstrom){spread}")
    return {"frames": written, "output": str(options.output)}


def read_structures(files: Iterable[Path], format: str | None) -> Iterator[Atoms]:
    """All structures as ASE reads them, with all that their files say of them."""
    for file in files:
        # A name may hold an @, which ASE would take for an index.
        yield from ase.io.iread(str(file), ":", format, parallel=False, do_not_split_by_at_sign=True)


def with_prediction(atoms: Atoms, prediction: Prediction, spread: Spread | None = None) -> Atoms:
    """``atoms`` with the prediction as results of its calculator, and with those it had as ``ref_...``.

    The spread of a committee is in ``info`` and ``arrays``: ``energy_std``, ``forces_std`` (n,), ``charges_std`` (n,),
    ``dipole_std`` (3,) and, of crystals, ``stress_std`` (6,), in Voigt order.

    Raises:
        ValueError: a name for the reference is taken already.
    """
    labelled = atoms.copy()
    known = prediction.known()
    usual = PREDICTED if prediction.energy is not None else ()
    deviations = () if spread is None else tuple(f"{name}_std" for name in SPREAD if usual or name in known)
    names = (*usual, *(name for name in known if name not in PREDICTED), *deviations)
    for name, value in reference_results(atoms, names).items():
        of_atoms = name in per_atom_properties or name in atoms.arrays
        kept, reference = labelled.arrays if of_atoms else labelled.info, REFERENCE_PREFIX + name
        if reference in labelled.arrays or reference in labelled.info:
            raise ValueError(
                f"data: a structure has both {name} and {reference}, as which {name} would be kept: rename one of them"
            )
        kept[reference] = value
    for name in names:
        labelled.info.pop(name, None)
        labelled.arrays.pop(name, None)
    results = known
    if "stress" in results:
        results["stress"] = full_3x3_to_voigt_6_stress(results["stress"])
        if not atoms.pbc.all():
            del results["stress"]
    labelled.calc = SinglePointCalculator(labelled, **results)
    if spread is not None:
        for name in SPREAD:
            if name in results:
                value = getattr(spread, name)
                place = labelled.arrays if name in OF_ATOMS else labelled.info
                place[f"{name}_std"] = full_3x3_to_voigt_6_stress(value) if name == "stress" else value
    return labelled


def reference_results(atoms: Atoms, names: Iterable[str] = PREDICTED) -> dict:
    """Calculated properties that the file has, among a calculator's results or, in some formats, in info and arrays."""
    held = {name: place[name] for place in (atoms.info, atoms.arrays) for name in names if name in place}
    results = {} if atoms.calc is None else atoms.calc.results
    return held | {name: value for name, value in results.items() if value is not None}


def write_structures(path: Path, structures: Iterable[Atoms]) -> int:
    """Writes extended XYZ, whole or not at all, and returns the number of structures."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    count = 0
    try:
        with open(unfinished, "w") as file:
            for atoms in structures:
                ase.io.write(file, atoms, format="extxyz")
                count += 1
    except BaseException:
        unfinished.unlink()
        raise
    os.replace(unfinished, path)
    return count
