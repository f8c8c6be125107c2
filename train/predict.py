"""Predicted energies, forces and stresses of structures in a file, as extended XYZ.

The output holds the structures of all files in order, with energy (eV), forces (eV/Angstrom) and, where all directions
are periodic, stress (eV/Angstrom^3) as ASE reads them; and with charges (e) and, of molecules, dipole (e Angstrom), if
the model has them. What the input had under these names is kept as ref_energy, ref_forces, ref_stress ...; all else it
had is kept as it was. Several models are a committee: values are their mean, and
energy_std (eV), forces_std (of each atom, eV/Angstrom), stress_std, charges_std and dipole_std say how far they are
apart. Where the files have labels under these names, errors are printed, and written with --run_dir; evaluate knows
labels by other names, too.
"""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import per_atom_properties
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress
from torch_geometric.data import Data

from datasets.atoms_details import DEFAULT_HEAD
from datasets.label_names import OF_ATOMS, item_shape
from pyg_cgconv.potential import Potential
from train.comparison import compare, table_of, write_comparison
from train.data import made_alike
from train.data_files import DataFiles
from train.frame_weights import leave_out_labels_without_weight, name_details
from train.options import require_positive
from train.outputs import create_results_folder, refuse_existing
from train.predictions import Prediction, as_labels, predict_frames
from train.source_frames import name_places
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
        run_dir: folder for metrics.json, parity.png and report.html of the errors, where the files have labels
            (default: errors are only printed).
    """

    output: Path
    batch_size: int = 32
    energies: bool = False
    run_dir: Path | None = None

    def __post_init__(self):
        require_positive(self, "batch_size")
        if self.output.suffix not in EXTENDED_XYZ:
            raise ValueError(f"output={str(self.output)!r}: expected a name that ends in .xyz, extended XYZ is written")
        refuse_existing("output", self.output)


OPTIONS = (ModelFiles, DataFiles, PredictOptions, ComputeOptions)


def run(models: ModelFiles, files: DataFiles, options: PredictOptions, compute: ComputeOptions) -> dict:
    """Writes the file and returns how many frames are in it, and their errors if it has labels."""
    compute.use_threads()
    potentials, head = models.load_with_head(compute)
    dataset = files.read(max(potential.cutoff for potential in potentials), labels=(), details=True)
    for potential in potentials:
        files.check_elements(dataset, potential)
    frames = list(dataset)
    name_details(frames)
    name_places(frames, files.files)
    if options.run_dir is not None:
        names, structures = names_of(potentials), read_structures(files.files, files.format)
        if not any(
            is_of_head(frame, head) and names & reference_results(atoms, names).keys()
            for frame, atoms in zip(frames, structures, strict=True)
        ):
            of_head = "" if head is None else f" of the head {head}"
            raise ValueError(
                f"run_dir: no frame{of_head} in the files has {', '.join(sorted(names))} to compare with; leave it out"
            )
        create_results_folder(options.run_dir, "predict", files.files[0].stem)
    if len(potentials) > 1:
        predictions: Iterable = predict_with_spread(potentials, frames, options.batch_size, options.energies)
    else:
        each = predict_frames(potentials[0], frames, options.batch_size, options.energies)
        predictions = ((prediction, None) for prediction in each)
    given: list[Prediction] = []
    references: list[dict[str, torch.Tensor]] = []
    odd: list[str] = []

    def labelled() -> Iterator[Atoms]:
        structures = read_structures(files.files, files.format)
        for atoms, (prediction, spread) in zip(structures, predictions, strict=True):
            given.append(prediction)
            references.append({})
            try:
                references[-1] = reference_labels(atoms, prediction)
            except ValueError as mistake:
                odd.append(str(mistake))
            yield with_prediction(atoms, prediction, spread)

    written = write_structures(options.output, labelled())
    print(f"{options.output}: {written} frames with {what_is_written(potentials)}")
    if odd:
        print(f"warning: {len(odd)} frames are not compared with their labels, the first of them because {odd[0]}")
    result = {"frames": written, "output": str(options.output)}
    references = [labels if is_of_head(frame, head) else {} for frame, labels in zip(frames, references, strict=True)]
    if any(references):
        result["errors"] = compared(models, files, options, frames, given, references, potentials[0])
    return result


def is_of_head(frame: Data, head: str | None) -> bool:
    """Whether labels of the frame are what the head ``head`` predicts."""
    return head is None or frame.head_name in (head, DEFAULT_HEAD)


def names_of(potentials: Sequence[Potential]) -> set[str]:
    """What the potentials predict, as files name it."""
    properties = {name for potential in potentials for name in potential.hyperparameters["properties"]}
    return properties | ({"forces", "stress"} if "energy" in properties else set())


def what_is_written(potentials: Sequence[Potential]) -> str:
    spread = f", and the spread of {len(potentials)} models" if len(potentials) > 1 else ""
    of_each = [potential.hyperparameters["properties"] for potential in potentials]
    properties = [name for name in of_each[0] if all(name in others for others in of_each)]
    has_energy = "energy" in properties
    named = ", ".join(["energy", "forces", *properties[1:]] if has_energy else properties)
    named += " and, of crystals, stress" if has_energy else ""
    return f"{named} (eV, e, Angstrom){spread}"


def reference_labels(atoms: Atoms, prediction: Prediction) -> dict[str, torch.Tensor]:
    """What the file has of what was predicted, as labels of a frame, float64.

    Raises:
        ValueError: a label has another shape, or is not made of numbers.
    """
    shapes = {name: item_shape(name, len(atoms)) for name in prediction.known()}
    if not atoms.pbc.all():
        shapes.pop("stress", None)
    labels = {}
    found = reference_results(atoms, shapes)
    for name in shapes.keys() & found.keys():
        numbers = np.asarray(found[name])
        if name == "stress" and numbers.size == 6:
            numbers = voigt_6_to_full_3x3_stress(numbers.ravel())
        if numbers.dtype.kind not in "iuf" or numbers.size != math.prod(shapes[name]):
            raise ValueError(
                f"data: a structure has {name} of {numbers.dtype} and shape {numbers.shape}, expected numbers of shape "
                f"{shapes[name]}: correct the file, or give the label another name"
            )
        labels[name] = torch.from_numpy(numbers.astype(np.float64)).reshape(shapes[name])
    return labels


def compared(
    models: ModelFiles,
    files: DataFiles,
    options: PredictOptions,
    frames: Sequence[Data],
    given: Sequence[Prediction],
    references: Sequence[dict[str, torch.Tensor]],
    potential: Potential,
) -> dict:
    """Prints errors, writes them where that is asked for, and returns them."""
    for frame, reference in zip(frames, references, strict=True):
        for name, value in reference.items():
            frame[name] = value
    leave_out_labels_without_weight(frames)
    made_alike(frames)
    predicted = as_labels(given, frames)
    model, data = (", ".join(map(str, paths)) for paths in (models.model, [path.name for path in files.files]))
    metrics, computed = compare(model, data, frames, predicted, potential.hyperparameters)
    print(f"\n{table_of(metrics, frames, computed)}")
    if options.run_dir is not None:
        write_comparison(options.run_dir, metrics, frames, predicted, computed)
        print(f"\nresults in {options.run_dir}")
    return metrics["errors"]


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
