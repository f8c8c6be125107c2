"""Replicas in one batch are single runs."""

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.constraints import FixBondLength, FixCom

from pyg_cgconv import ASECalculator, Potential
from train.cli import main
from train.replicas import FixEachCom, ReplicaCalculator, ReplicaRandom, together

from .conftest import GEOMETRY, NUMBERS, start_of_dynamics

RECORD = "--steps 60 --log_interval 10 --trajectory_interval 20 --temperature 600 --timestep 0.5 --seed 7 --skin 0.2"


pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return start_of_dynamics(tmp_path_factory.mktemp("md"), scale=20.0, dtype="float64")


def md(place, structure, folder, options) -> dict:
    words = [place / "model.pt", "--structure", place / f"{structure}.xyz", "--run_dir", folder, "--device", "cpu"]
    return main(["md", *map(str, words), *RECORD.split(), *options.split()])


def log(folder) -> np.ndarray:
    return np.loadtxt(folder / "log.csv", delimiter=",", skiprows=1)


@pytest.mark.parametrize(
    ("structure", "ensemble"),
    [
        *[pytest.param(*each, marks=pytest.mark.slow) for each in (("crystal", "nvt"), ("molecule", "nve"))],
        *[pytest.param(s, e, marks=pytest.mark.thorough) for s, e in (("molecule", "nvt"), ("crystal", "nve"))],
        *[pytest.param("clamped", ensemble, marks=pytest.mark.thorough) for ensemble in ("nve", "nvt")],
    ],
)
def test_each_replica_is_the_single_run_with_its_seed(place, tmp_path, structure, ensemble):
    summary = md(place, structure, tmp_path / "all", f"--ensemble {ensemble} --replicas 3")
    for number in range(3):
        single = md(place, structure, tmp_path / str(number), f"--ensemble {ensemble} --seed {7 + number}")
        folder = tmp_path / "all" / f"replica-{number}"
        np.testing.assert_allclose(log(folder), log(tmp_path / str(number)), atol=1e-7)
        found, expected = (ase.io.read(one / "trajectory.xyz", ":") for one in (folder, tmp_path / str(number)))
        assert len(found) == len(expected) == 4
        np.testing.assert_allclose(found[-1].positions, expected[-1].positions, atol=2e-8)
        np.testing.assert_allclose(found[-1].get_momenta(), expected[-1].get_momenta(), atol=2e-7)
        np.testing.assert_allclose(found[-1].get_forces(False), expected[-1].get_forces(False), atol=1e-6)
        mean = summary["replicas"][number]["temperature_mean_K"]
        assert mean == pytest.approx(single["temperature_mean_K"], rel=1e-6)
    means = [replica["temperature_mean_K"] for replica in summary["replicas"]]
    assert len(set(means)) == 3
    assert summary["temperature_mean_K"] == pytest.approx(np.mean(means))
    assert summary["atoms"] == len(found[-1])


def replicas(structure: Atoms, count: int = 3) -> list[Atoms]:
    found = [structure.copy() for _ in range(count)]
    for seed, atoms in enumerate(found):
        atoms.rattle(0.2, seed=seed)
    return found


@pytest.mark.parametrize("structure", ["molecule", "crystal"])
def test_one_call_gives_the_forces_of_all(place, structure):
    each = replicas(ase.io.read(place / f"{structure}.xyz"))
    potential, calls = Potential.load(place / "model.pt"), []
    potential.register_forward_hook(lambda *_: calls.append(1))
    atoms = together(each)
    atoms.calc = ReplicaCalculator(potential, skin=0.5, count=3)
    single = ASECalculator(place / "model.pt")
    for _ in range(2):  # with new lists, then with the same
        expected = np.concatenate([single.get_forces(one) for one in each])
        np.testing.assert_allclose(atoms.get_forces(), expected, atol=1e-11)
        np.testing.assert_allclose(atoms.calc.energies, [single.get_potential_energy(one) for one in each])
        assert atoms.get_potential_energy() == pytest.approx(atoms.calc.energies.sum())
        for one in each:
            one.positions += 0.01
        atoms.positions += 0.01
    assert len(calls) == 2
    assert [neighbors.builds for neighbors in atoms.calc.lists] == [1, 1, 1]


def test_a_replica_that_moves_far_gets_a_new_list(place):
    each = replicas(ase.io.read(place / "molecule.xyz"))
    atoms = together(each)
    atoms.calc = ReplicaCalculator(Potential.load(place / "model.pt"), skin=0.5, count=3)
    atoms.get_forces()
    atoms.positions[7] += 1.0
    each[1].positions[2] += 1.0
    expected = [ASECalculator(place / "model.pt").get_forces(one) for one in each]
    np.testing.assert_allclose(atoms.get_forces(), np.concatenate(expected), atol=1e-11)
    assert [neighbors.builds for neighbors in atoms.calc.lists] == [1, 2, 1]


def test_each_centre_of_mass_is_fixed_as_by_ase():
    structure = Atoms(NUMBERS, GEOMETRY)
    atoms, rng = together([structure] * 2), np.random.default_rng(0)
    constraint = FixEachCom(2)
    changes = {name: rng.standard_normal((10, 3)) for name in ("adjust_positions", "adjust_momenta", "adjust_forces")}
    for name, values in changes.items():
        start = atoms.positions if name == "adjust_positions" else 0.0
        found = start + values
        expected = found.copy().reshape(2, 5, 3)
        getattr(constraint, name)(atoms, found)
        for one in expected:
            getattr(FixCom(), name)(structure, one)
        np.testing.assert_allclose(found, expected.reshape(10, 3), atol=1e-12)
    assert constraint.get_removed_dof(atoms) == 6


def test_random_numbers_are_those_of_each_generator():
    random = ReplicaRandom([np.random.default_rng(seed) for seed in (1, 2)])
    found = [random.standard_normal(size=(6, 3)) for _ in range(2)]
    for number, seed in enumerate((1, 2)):
        alone = np.random.default_rng(seed)
        for one in found:
            np.testing.assert_array_equal(one[3 * number : 3 * number + 3], alone.standard_normal((3, 3)))


def test_other_constraints_are_named():
    atoms = Atoms("CO", positions=[[0, 0, 0], [1.1, 0, 0]])
    atoms.set_constraint(FixBondLength(0, 1))
    with pytest.raises(ValueError, match=r"replicas=2: of constraints only fixed atoms can be, got .*FixBond"):
        together([atoms, atoms])


def test_masses_of_the_structure_are_kept():
    heavy = Atoms("H2", positions=[[0, 0, 0], [1.0, 0, 0]], masses=[2.014, 2.014])
    heavy.set_momenta([[1.0, 0, 0], [0, 2.0, 0]])
    atoms = together([heavy, heavy])
    np.testing.assert_allclose(atoms.get_masses(), 2.014)
    assert atoms.get_kinetic_energy() == pytest.approx(2 * heavy.get_kinetic_energy())
    assert units.fs > 0
