"""Makes the embedded set `alloys-emt`: periodic Al, Ni, Cu and Au alloys with energies, forces and stresses.

    python -m datasets.generate_alloys

Labels are those of ASE's effective medium theory, a classical potential that takes milliseconds: a set to try things
on, not a reference for metals. A frame depends on nothing but its number, so that any of them can be made again by
itself. Wants ASE. `data/README.md` tells what is in the set.
"""

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk, fcc111, hcp0001
from ase.calculators.emt import EMT

from datasets.alloys import FILE, write_alloys

FRAMES = 600
# fcc lattice constants that EMT gives the elements, Angstrom; an alloy starts from their mean.
LATTICE_CONSTANTS = {"Al": 3.99, "Ni": 3.49, "Cu": 3.59, "Au": 4.06}
ELEMENTS_OF_A_FRAME = (1, 2, 2, 3, 4)  # as many different ones, each with the same chance
LARGEST_STRAIN = 0.05  # of each component
RATTLES = (0.0, 0.03, 0.06, 0.09, 0.12)  # Angstrom, standard deviation of each coordinate
DECIMALS = 6  # Angstrom. Rounded before labelling, so labels belong to exactly these positions and cells

SHAPES = {
    "one atom": lambda a: bulk("X", "fcc", a=a),
    "rhombohedral": lambda a: bulk("X", "fcc", a=a) * (2, 2, 2),
    "cubic": lambda a: bulk("X", "fcc", a=a, cubic=True),
    "long": lambda a: bulk("X", "fcc", a=a, cubic=True) * (1, 1, 3),
    "orthorhombic": lambda a: bulk("X", "fcc", a=a, orthorhombic=True) * (2, 1, 2),
    "body-centred": lambda a: bulk("X", "bcc", a=a * 0.79, cubic=True) * (2, 2, 1),
    "hexagonal": lambda a: bulk("X", "hcp", a=a / 2**0.5, c=a * (4 / 3) ** 0.5) * (2, 2, 1),
    "surface": lambda a: fcc111("X", (2, 2, 3), a=a, vacuum=5.0),
    "hexagonal surface": lambda a: hcp0001("X", (2, 1, 4), a=a / 2**0.5, c=a * (4 / 3) ** 0.5, vacuum=5.0),
}


def frame(number: int) -> Atoms:
    """Frame ``number`` of the set, labelled: deformed cell, elements at random sites, displaced atoms."""
    rng = np.random.RandomState(number)
    symbols = rng.permutation(list(LATTICE_CONSTANTS))[: rng.choice(ELEMENTS_OF_A_FRAME)]
    shape = list(SHAPES)[number % len(SHAPES)]
    chosen = rng.choice(symbols, len(SHAPES[shape](1.0)))
    atoms = SHAPES[shape](np.mean([LATTICE_CONSTANTS[symbol] for symbol in chosen]))
    atoms.symbols = chosen
    strain = rng.uniform(-LARGEST_STRAIN, LARGEST_STRAIN, (3, 3))
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    atoms.positions += rng.choice(RATTLES) * rng.normal(size=(len(atoms), 3))
    plain = Atoms(atoms.numbers, atoms.positions.round(DECIMALS), cell=atoms.cell.array.round(DECIMALS), pbc=atoms.pbc)
    plain.calc = EMT()
    plain.get_forces()
    plain.get_stress()
    return plain


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=FILE)
    chosen = parser.parse_args(arguments)
    order = np.random.RandomState(FRAMES).permutation(FRAMES)
    write_alloys(chosen.output, [frame(int(number)) for number in order], order)
    print(f"{FRAMES} frames -> {chosen.output} ({chosen.output.stat().st_size / 1e6:.2f} MB)")


if __name__ == "__main__":
    main()
