"""From a file of your own to a potential in ASE: write, look, train, evaluate, use. The files are left in the folder.

PYTHONPATH=. python examples/own_xyz.py
"""

import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write

from datasets import AtomsFile
from pyg_cgconv import ASECalculator
from train.cli import main as train


def frames(count: int, seed: int) -> list:
    """Crystals of copper and gold, deformed and rattled. EMT stands for your own calculations."""
    rng, made = np.random.RandomState(seed), []
    for _ in range(count):
        atoms = bulk("Cu", a=3.85, cubic=True)
        atoms.symbols = rng.choice(["Cu", "Au"], len(atoms))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.uniform(-0.04, 0.04, (3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(scale=0.08, size=(len(atoms), 3))
        atoms.calc = EMT()
        atoms.get_forces(), atoms.get_stress()
        made.append(atoms)
    return made


def main() -> dict[str, float]:
    # ASE writes what the calculator has computed. Other codes' names are told by energy_key, forces_key, stress_key.
    write("training.xyz", frames(150, seed=0))
    write("test.xyz", frames(20, seed=1))
    print(AtomsFile("training.xyz").statistics(cutoff=5.0))

    # The same as: python -m train frames --train_file training.xyz --run_dir runs/alloy ...
    model = "--cutoff 5 --channels 8 --layers 1 --radial_species true --max_epochs 25 --threads 1 --progress false"
    train(f"frames --train_file training.xyz --run_dir runs/alloy {model}".split())
    test = train(["evaluate", "runs/alloy", "--data", "test.xyz", "--run_dir", "runs/test"])["errors"]

    (atoms,) = frames(1, seed=2)
    expected = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    atoms.calc = ASECalculator("runs/alloy")
    found = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    for name, computed, learnt in zip(("energy", "forces", "stress"), expected, found, strict=True):
        print(f"{name}: largest component {np.abs(computed).max():.4f}, error {np.abs(learnt - computed).max():.4f}")
    return test


if __name__ == "__main__":
    main()
