"""Relaxing atoms and cell by ASE with a trained potential, beside the relaxation with what it was trained on.

PYTHONPATH=. python examples/relaxation.py
"""

from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.io import write
from ase.optimize import BFGS

from datasets import AlloysEMT
from pyg_cgconv import ASECalculator
from train.cli import main as train


def relaxed(atoms: Atoms, calculator) -> Atoms:
    """Positions and cell, until no force and no stress is left."""
    atoms = atoms.copy()
    atoms.calc = calculator
    if not BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.01, steps=200):
        raise RuntimeError("the relaxation did not converge")
    return atoms


def main() -> dict[str, float]:
    # The embedded set holds energies, forces and stresses of alloys by EMT: a potential learns them in seconds.
    write("alloys.xyz", AlloysEMT().to_ase())
    model = "--cutoff 5 --channels 8 --radial_species true --max_epochs 6 --threads 1 --progress false"
    train(f"frames --train_file alloys.xyz --run_dir runs/alloys {model}".split())
    learnt = ASECalculator("runs/alloys")

    ordered = bulk("Cu", a=3.7, cubic=True)
    ordered.symbols[0] = "Au"  # Cu3Au
    ordered.rattle(0.1, seed=0)
    errors = {}
    for name, atoms in {"Cu": bulk("Cu"), "Cu3Au": ordered, "NiAl": bulk("NiAl", "cesiumchloride", a=3.0)}.items():
        lengths = [
            (each.cell.volume / len(each) * 4) ** (1 / 3) for each in (relaxed(atoms, EMT()), relaxed(atoms, learnt))
        ]
        errors[name] = abs(lengths[1] / lengths[0] - 1)
        print(f"{name}: lattice constant {lengths[1]:.3f} A, with EMT {lengths[0]:.3f} A")
    return errors


if __name__ == "__main__":
    main()
