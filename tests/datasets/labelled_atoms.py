"""Molecules and crystals with made-up labels, and files of them."""

import numpy as np
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write


def labelled(atoms, seed=0, stress=None, **more):
    """``atoms`` with made-up labels of full float64 precision."""
    rng = np.random.default_rng(seed)
    stress = rng.normal(size=6) if stress is None and atoms.pbc.all() else stress
    results = {"energy": -97_000 / 7 + rng.normal(), "forces": rng.normal(size=(len(atoms), 3)), **more}
    atoms.calc = SinglePointCalculator(atoms, **results, **({} if stress is None else {"stress": stress}))
    return atoms


def molecules():
    return [labelled(molecule(name), seed) for seed, name in enumerate(("H2O", "CH3OH", "H2O", "NH3"))]


def crystals():
    skewed = bulk("NaCl", "rocksalt", a=5.6)
    skewed.set_cell(np.array([[0, 0.1, 0.2], [0, 0, 0.3], [0, 0, 0]]) + skewed.cell.array, scale_atoms=True)
    return [labelled(skewed, 0), labelled(bulk("Cu", "fcc", a=3.6, cubic=True), 1)]


def written(path, images):
    """``path`` with the frames in it; in .traj, ASE's own format, nothing is rounded, in .xyz positions are."""
    write(path, images)
    return path
