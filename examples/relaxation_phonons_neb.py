"""Copper by a potential that learns ASE's EMT in half a minute: relaxation, phonons, the hop of an adatom.

PYTHONPATH=. python examples/relaxation_phonons_neb.py [EPOCHS]
"""

import sys
import tempfile
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc100
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.mep import NEB
from ase.optimize import BFGS
from ase.phonons import Phonons

from pyg_cgconv import ASECalculator
from train.cli import main as train


def slab(way: float) -> Atoms:
    """Two layers of copper, the lower one fixed, and an atom on its way from one hollow, 0, to the next, 1."""
    atoms = fcc100("Cu", size=(2, 2, 2), vacuum=6.0)
    atoms.set_constraint(FixAtoms(mask=atoms.positions[:, 2] < atoms.positions[:, 2].mean()))
    add_adsorbate(atoms, "Cu", 1.6 + 0.4 * np.sin(np.pi * way), "hollow")
    atoms.positions[-1] += way * atoms.cell[0] / 2
    atoms.info.clear()
    return atoms


def frames(count: int = 80) -> list[Atoms]:
    """Strained and shaken crystals, and adatoms anywhere on their way."""
    rng, found = np.random.default_rng(0), []
    for number in range(count):
        atoms = slab(rng.uniform(-0.1, 1.1)) if number % 4 else bulk("Cu", cubic=True)
        atoms.set_constraint()
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.01 * rng.standard_normal((3, 3))), scale_atoms=True)
        atoms.rattle(rng.uniform(0.01, 0.1), rng=rng)
        atoms.calc = EMT()
        atoms.get_forces(), atoms.get_stress()
        found.append(atoms)
    return found


def relaxed(calculator) -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.calc = calculator
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-3, steps=100)
    return atoms


def highest_phonon(calculator, folder: Path, lattice: float) -> float:
    """Of the zone boundary X, THz, by ASE's finite displacements."""
    phonons = Phonons(bulk("Cu", a=lattice), calculator, supercell=(3, 3, 3), delta=0.02, name=folder / "phonons")
    phonons.run()
    phonons.read(acoustic=True)
    phonons.clean()
    return float(phonons.band_structure([[0.5, 0.5, 0.0]]).max()) * 241.799  # eV to THz


def barrier(calculator) -> float:
    """Of the hop from one hollow to the next, eV, by the nudged elastic band."""
    first, last = slab(0), slab(1)
    images = [first, *(first.copy() for _ in range(3)), last]
    for image in images:
        image.calc = calculator
    for end in (first, last):
        BFGS(end, logfile=None).run(fmax=0.02, steps=100)
    band = NEB(images, climb=True, method="improvedtangent", allow_shared_calculator=True)
    band.interpolate(mic=True)
    BFGS(band, logfile=None).run(fmax=0.05, steps=60)
    return max(image.get_potential_energy() for image in images) - first.get_potential_energy()


def main(epochs: str = "80") -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ase.io.write(folder / "copper.xyz", frames())
        size = ["--cutoff", "6", "--channels", "8", "--lmax", "1", "--layers", "1", "--batch_size", "4"]
        effort = ["--max_epochs", epochs, "--threads", "1", "--progress", "false"]
        train(["frames", "--train_file", f"{folder}/copper.xyz", "--run_dir", f"{folder}/run", *size, *effort])
        learned = ASECalculator(folder / "run", dtype="float64")
        lattice = {}
        for label, calculator in (("EMT", EMT()), ("learned", learned)):
            crystal = relaxed(calculator)
            lattice[label] = crystal.cell.lengths().mean()
            highest = highest_phonon(calculator, folder, lattice[label])
            hop = barrier(calculator)
            print(
                f"{label}: lattice {lattice[label]:.4f} Å, highest phonon at X {highest:.2f} THz, barrier {hop:.3f} eV"
            )
        hessian = learned.get_hessian(relaxed(learned))
        values = np.linalg.eigvalsh(hessian.reshape(12, 12))
        print(f"Hessian of the relaxed cell: smallest eigenvalue {values[0]:.5f}, largest {values[-1]:.3f} eV/Å²")


if __name__ == "__main__":
    main(*sys.argv[1:])
