"""Prints what is in a data set or in files of structures: counts, elements, labels, how their values are spread.

python -m datasets describe EthanolPBE
python -m datasets describe frames.xyz more.xyz --cutoff 5 --plot frames.png
python -m datasets describe MD17 --root DIR --molecule aspirin --json
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from datasets.alloys import AlloysEMT
from datasets.atoms_file import AtomsFile
from datasets.ethanol import EthanolPBE
from datasets.histograms import plot
from datasets.md17 import MD17
from datasets.md17_ccsd import MD17CCSD
from datasets.qm9 import QM9, QM9Sample
from datasets.structure_dataset import StructureDataset

# By name, and the options that each takes: of those marked True it has to have a value.
SETS: dict[str, tuple[Callable[..., StructureDataset], dict[str, bool]]] = {
    "EthanolPBE": (EthanolPBE, {}),
    "AlloysEMT": (AlloysEMT, {}),
    "QM9Sample": (QM9Sample, {}),
    "MD17": (MD17, {"root": True, "molecule": False, "revised": False}),
    "MD17CCSD": (MD17CCSD, {"root": True, "molecule": False}),
    "QM9": (QM9, {"root": False}),
}
OF_FILES = ("energy_key", "forces_key", "stress_key", "virial_key", "format")
OF_SETS = ("root", "molecule", "revised")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m datasets describe",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("source", nargs="+", help=f"one of {', '.join(SETS)}, or files that ASE reads, taken together")
    made.add_argument("--cutoff", type=float, help="Angstrom: count the neighbours of each atom that are nearer")
    made.add_argument("--plot", type=Path, metavar="FILE", help="write histograms, such as frames.png")
    made.add_argument("--json", action="store_true", help="print JSON and nothing else")
    made.add_argument("--root", type=Path, help="folder of the published files; they are downloaded if missing")
    made.add_argument("--molecule", help="of MD17, MD17CCSD (default: ethanol)")
    made.add_argument("--original", dest="revised", action="store_const", const=False, help="MD17 instead of rMD17")
    for name in OF_FILES:
        made.add_argument(f"--{name}", help=f"as AtomsFile has it: {_MEANINGS[name]}")
    return made


_MEANINGS = {
    "energy_key": "the name of the energy in the files, such as REF_energy",
    "forces_key": "the name of the forces",
    "stress_key": "the name of the stress",
    "virial_key": "the name of the virial",
    "format": "ASE's name of the format, for files whose name does not tell it",
}


def read(chosen: argparse.Namespace) -> StructureDataset:
    """The data set that the options name.

    Raises:
        FileNotFoundError: there is no such set and no such file.
        ValueError: an option is not one of the set's, or a file cannot be read.
    """
    first = chosen.source[0]
    given = {name: value for name in OF_SETS + OF_FILES if (value := getattr(chosen, name)) is not None}
    make, takes = SETS.get(first, (None, dict.fromkeys(OF_FILES, False)))
    if make is not None and len(chosen.source) > 1:
        raise ValueError(f"source: {first} is described by itself, but got {chosen.source}; name one set, or files")
    for name in given:
        if name not in takes:
            option = "--original" if name == "revised" else f"--{name}"
            known = ", ".join(f"--{other}" for other in takes).replace("--revised", "--original") or "none"
            raise ValueError(f"{option}: no option of {first}, of which there are: {known}; leave it out")
    for name, needed in takes.items():
        if needed and name not in given:
            raise ValueError(f"--{name}: missing, which {first} needs; give the folder of its files")
    if make is not None:
        return make(**given)
    missing = [source for source in chosen.source if not Path(source).expanduser().is_file()]
    if missing:
        raise FileNotFoundError(f"source: {missing[0]!r} is no file, and no data set: those are {', '.join(SETS)}")
    return AtomsFile(chosen.source, **given)


def main(arguments: Sequence[str]) -> None:
    """Describes what ``arguments`` name. Raises ValueError, OSError and ImportError for mistakes."""
    chosen = parser().parse_args(arguments)
    if chosen.plot is not None and not chosen.plot.parent.is_dir():
        raise FileNotFoundError(f"--plot: there is no folder {str(chosen.plot.parent)!r} for the picture; make it")
    found = read(chosen).statistics(chosen.cutoff)
    if chosen.plot is not None:
        plot(chosen.plot, found, ", ".join(chosen.source))
    print(json.dumps(found.to_dict(), indent=2) if chosen.json else found)
    if chosen.plot is not None:
        print(f"plot: {chosen.plot}", file=sys.stderr if chosen.json else sys.stdout)
