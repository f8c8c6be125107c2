"""What is said of frames before a training: of wrong ones by name, of right ones nothing."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import write
from ase.units import Bohr, GPa, Hartree, kcal, mol

from datasets import EthanolPBE
from pyg_cgconv import RadiusGraph
from train import frame_checks, unit_checks
from train.frame_checks import far_energies, net_forces, robust_fit, warn_of_unlikely_frames
from train.frames import FramesOptions, read_splits
from train.source_frames import SourceFrame
from train.unit_checks import unlikely_units

CUTOFF = 4.0


def crystals(count: int = 16, seed: int = 0) -> list[Atoms]:
    """A trajectory of shaken copper and gold; energies are of all electrons, as it were."""
    random, made = np.random.default_rng(seed), []
    for _ in range(count):
        atoms = bulk("Cu", "fcc", a=3.7, cubic=True)
        atoms.symbols[0] = "Au"
        atoms.rattle(0.08, rng=random)
        atoms.calc = EMT()
        results = {name: atoms.calc.get_property(name, atoms) for name in ("energy", "forces", "stress")}
        results["energy"] += 3 * -45_000.0 - 520_000.0
        atoms.calc = SinglePointCalculator(atoms, **results)
        made.append(atoms)
    return made


def changed(factors: dict[str, float], length: float = 1.0) -> list[Atoms]:
    images = crystals()
    for atoms in images:
        for name, factor in factors.items():
            atoms.calc.results[name] = factor * atoms.calc.results[name]
        atoms.set_cell(length * atoms.cell, scale_atoms=True)
    return images


def sources(images: list[Atoms], tmp_path, cutoff: float = CUTOFF) -> list[SourceFrame]:
    """As a training reads them."""
    write(tmp_path / "frames.xyz", images)
    found: list[list[SourceFrame]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.frames.warn_of_unlikely_frames", found.append)
        read_splits(FramesOptions(str(tmp_path / "frames.xyz")), cutoff)
    return found[0]


def ethanol(count: int = 60) -> list[SourceFrame]:
    connect, dataset = RadiusGraph(CUTOFF), EthanolPBE()
    return [SourceFrame(connect(dataset[n]), Path("ethanol.xyz"), n) for n in range(count)]


def said(check, frames) -> str:
    return "; ".join(check(frames))


# === what is right ===


def test_nothing_is_said_of_right_frames(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_unlikely_frames(sources(crystals(), tmp_path))
        warn_of_unlikely_frames(ethanol())
        warn_of_unlikely_frames([])


def test_nothing_is_said_of_molecules_of_all_kinds(tmp_path):
    """Energies of all electrons, of which a fit leaves what bonds differ in; relaxed as far as forces tell."""
    random, images = np.random.default_rng(0), []
    names = ("H2O", "CH4", "NH3", "CH3OH", "CO2", "C2H6", "H2CO", "HCN", "C6H6", "H2O2", "CH3CHO", "N2H4")
    atom = {"H": -13.6, "C": -1030.0, "N": -1485.0, "O": -2042.0}
    for _ in range(3):
        for name in names:
            atoms = molecule(name)
            bonds = 2.2 * len(atoms) * random.uniform(0.8, 1.2)
            energy = sum(atom[symbol] for symbol in atoms.symbols) - bonds
            atoms.rattle(0.02, rng=random)
            atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.zeros((len(atoms), 3)))
            images.append(atoms)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_unlikely_frames(sources(images, tmp_path))


# === forces ===


def test_forces_that_do_not_sum_to_zero_are_counted(tmp_path):
    images = crystals()
    images[3].calc.results["forces"] = images[3].calc.results["forces"] + [0.0, 0.5, 0.0]
    images[5].calc.results["forces"] = images[5].calc.results["forces"] + [0.0, 0.2, 0.0]
    text = said(net_forces, sources(images, tmp_path))
    assert "forces of 2 of 16 frames do not sum to zero, the largest sum is 2 eV/Angstrom (" in text
    assert "frames.xyz: frame 3)" in text


def test_forces_on_fixed_atoms_may_be_anything(tmp_path):
    images = crystals()
    for atoms in images:
        atoms.calc.results["forces"] = atoms.calc.results["forces"] + 1.0
        atoms.set_constraint(FixAtoms([0]))
    assert not said(net_forces, sources(images, tmp_path))


# === energies ===


def test_energies_far_from_a_fit_are_named(tmp_path):
    images = crystals(20)
    for number, off in ((2, 9.0), (11, -4000.0)):
        images[number].calc.results["energy"] += off
    text = said(far_energies, sources(images, tmp_path))
    assert "energies of 2 of 20 frames lie more than 1.0 eV/atom" in text
    assert text.index("frame 11 (-1000") < text.index("frame 2 (+2")


def test_a_fit_to_few_of_many_frames_knows_rare_elements(tmp_path, monkeypatch):
    images = crystals(30)
    for atoms in images[7:9]:
        atoms.symbols[0] = "Ag"
        atoms.calc.results["energy"] += 520_000.0 - 145_000.0
    found = sources(images, tmp_path)
    monkeypatch.setattr(frame_checks, "LOOKED_AT", 6)
    assert said(far_energies, found) == ""


def test_a_robust_fit_is_that_without_outliers():
    random = np.random.default_rng(0)
    part = random.dirichlet(np.ones(3), size=60)
    energy = part @ [-10.0, -2000.0, -500.0]
    energy[:7] += random.normal(scale=300.0, size=7)
    left = energy - part @ robust_fit(part, energy)
    np.testing.assert_allclose(left[7:], 0.0, atol=1e-3)
    assert np.abs(left[:7]).min() > 1.0


# === units ===


@pytest.mark.parametrize(
    ("factors", "length", "message"),
    [
        ({"energy": mol / kcal}, 1.0, r"are these energies in kcal/mol\?"),
        ({"energy": 1 / Hartree}, 1.0, r"are these energies in Hartree\? eV"),
        ({"forces": Bohr / Hartree}, 1.0, r"are these forces in Hartree/Bohr\?"),
        ({"energy": 1 / Hartree, "forces": Bohr / Hartree}, 1.0, "energies in Hartree and forces in Hartree/Bohr"),
        ({"forces": -1.0}, 1.0, "are these gradients in place of forces"),
        ({"energy": 0.25}, 1.0, r"are these energies of an atom, not of the frame\?"),
        ({"energy": mol / kcal, "forces": mol / kcal}, 1.0, r"forces are .* are they in kcal/mol/Angstrom"),
        ({"stress": 1 / GPa}, 1.0, r"stresses are .* are they in GPa or kbar"),
        ({"forces": Bohr}, 1 / Bohr, "neighbours are 1.7 times as far as bonds are long: are lengths in Bohr"),
        ({"forces": 10}, 0.1, "neighbours are at 0.09 of the lengths of bonds: are lengths in nm"),
    ],
)
def test_units_are_guessed(tmp_path, factors, length, message):
    text = said(unlikely_units, sources(changed(factors, length), tmp_path, cutoff=max(1.0, length) * CUTOFF))
    assert re.search(message, text), text


def test_edges_of_some_frames_are_enough(tmp_path, monkeypatch):
    looked_at = []
    shortest = unit_checks._shortest
    monkeypatch.setattr(unit_checks, "LOOKED_AT", 5)
    monkeypatch.setattr(unit_checks, "_shortest", lambda source: looked_at.append(source) or shortest(source))
    images = changed({"forces": Bohr}, 1 / Bohr)
    assert "are lengths in Bohr" in said(unlikely_units, sources(images, tmp_path, cutoff=CUTOFF / Bohr))
    assert len(looked_at) == 4  # each fourth of 16, no more than 5


def test_a_training_says_it_and_goes_on(tmp_path):
    write(tmp_path / "frames.xyz", changed({"energy": mol / kcal}))
    with pytest.warns(UserWarning, match="kcal/mol"):
        splits = read_splits(FramesOptions(str(tmp_path / "frames.xyz")), CUTOFF)
    assert len(splits.train) == 12
