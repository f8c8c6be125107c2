import copy
import pickle

import numpy as np
import pytest
import torch

from pyg_cgconv import Potential

pytest.importorskip("ase")
from ase import Atoms, units
from ase.calculators.calculator import PropertyNotImplementedError
from ase.md.verlet import VelocityVerlet

from pyg_cgconv import ASECalculator, CommitteeCalculator


def member(seed, cutoff=3.0, species=("H", "C", "O"), **options):
    torch.manual_seed(seed)
    size = dict(channels=2, lmax=1, layers=2, num_radial=3, radial_hidden=(4,), avg_num_neighbors=4.0)
    return Potential(species, cutoff, **size, scale=20.0, **{"dtype": "float64", **options})


@pytest.fixture(scope="module")
def members():
    return [member(0), member(1, cutoff=2.5), member(2)]


@pytest.fixture
def committee(members):
    return CommitteeCalculator(members)


def molecule():
    grid = np.stack(np.meshgrid(*[np.arange(2.0)] * 3), axis=-1).reshape(-1, 3)
    return Atoms("HCOHCHOH", positions=1.5 * grid + 0.3 * np.random.default_rng(0).random((8, 3)))


def crystal():
    rng = np.random.default_rng(1)
    return Atoms("HCO", scaled_positions=rng.random((3, 3)), cell=2.6 * np.eye(3) + 0.4 * rng.random((3, 3)), pbc=True)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("structure", [molecule, crystal])
def test_results_are_the_mean_and_the_deviation_of_the_members(members, committee, structure):
    """By calculators of their own, with the statistics of numpy."""
    atoms = structure()
    alone = [ASECalculator(potential) for potential in members]
    energy = np.array([calculator.get_potential_energy(atoms) for calculator in alone])
    forces = np.array([calculator.get_forces(atoms) for calculator in alone])
    close(committee.get_potential_energy(atoms), energy.mean())
    close(committee.get_forces(atoms), forces.mean(axis=0))
    found = committee.results
    close(found["energy_comm"], energy)
    close(found["energy_std"], np.std(energy))
    close(found["energy_var"], np.var(energy))
    close(found["forces_comm"], forces)
    close(found["forces_std"], np.sqrt(np.var(forces, axis=0).sum(axis=1)))
    assert found["free_energy"] == found["energy"]
    assert (found["forces_std"] > 1e-3).all()


def test_stress_has_a_spread_too(members, committee):
    atoms = crystal()
    stress = np.array([ASECalculator(potential).get_stress(atoms) for potential in members])
    close(committee.get_stress(atoms), stress.mean(axis=0))
    close(committee.results["stress_std"], stress.std(axis=0))
    close(committee.results["stress_comm"], stress)


def test_energies_and_stresses_of_atoms(members, committee):
    atoms = crystal()
    energies = np.array([ASECalculator(potential).get_potential_energies(atoms) for potential in members])
    close(committee.get_potential_energies(atoms), energies.mean(axis=0))
    close(committee.results["energies_std"], energies.std(axis=0))
    close(committee.get_stresses(atoms).sum(axis=0), committee.get_stress(atoms))


def test_spread_is_a_property_to_ask_for(committee):
    atoms = molecule()
    spread = committee.get_property("forces_std", atoms)
    close(spread, committee.results["forces_std"])
    assert spread.shape == (8,)
    with pytest.raises(PropertyNotImplementedError, match="stress_std: defined where the cell has a volume"):
        committee.get_property("stress_std", atoms)


def test_hessian_is_the_mean(members, committee):
    atoms = molecule()
    close(committee.get_hessian(atoms), np.mean([ASECalculator(one).get_hessian(atoms) for one in members], axis=0))


def test_same_members_have_no_spread(members):
    committee = CommitteeCalculator([members[0], members[0]])
    committee.get_forces(molecule())
    assert committee.results["energy_std"] == 0
    assert not committee.results["forces_std"].any()


@pytest.mark.slow
def test_one_neighbour_list_serves_all(committee):
    atoms = molecule()
    atoms.calc = committee
    before = atoms.get_total_energy()
    VelocityVerlet(atoms, 0.2 * units.fs).run(20)
    assert 1 <= committee.neighbors.builds < 10
    assert [calculator.neighbors.builds for calculator in committee.members] == [0, 0, 0]
    assert abs(atoms.get_total_energy() - before) < 1e-2
    close(atoms.get_forces(), np.mean([ASECalculator(one.potential).get_forces(atoms) for one in committee.members], 0))


def test_paths_and_folders_are_read(members, committee, tmp_path):
    (tmp_path / "run").mkdir()
    members[0].save(tmp_path / "run" / "potential.pt")
    members[1].save(tmp_path / "b.pt")
    found = CommitteeCalculator([tmp_path / "run", str(tmp_path / "b.pt"), members[2]])
    close(found.get_forces(molecule()), committee.get_forces(molecule()))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda calculator: pickle.loads(pickle.dumps(calculator))])
def test_copies_work(committee, copied):
    close(copied(committee).get_forces(molecule()), committee.get_forces(molecule()))


def test_device_and_dtype_reach_every_member(members, committee, device):
    found = CommitteeCalculator(members, device=device, dtype="float32")
    assert {one.potential.dtype for one in found.members} == {torch.float32}
    atoms = molecule()
    np.testing.assert_allclose(found.get_forces(atoms), committee.get_forces(atoms), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.results["forces_std"], committee.results["forces_std"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("given", ["runs/a", member(0), 7])
def test_no_list(given):
    with pytest.raises(TypeError, match="potentials: expected a list of potentials or of paths"):
        CommitteeCalculator(given)


def test_mistakes_are_named(members):
    with pytest.raises(ValueError, match="potentials: expected two or more, got 1; ASECalculator takes one"):
        CommitteeCalculator(members[:1])
    with pytest.raises(TypeError, match="got list; CommitteeCalculator takes several"):
        ASECalculator(members[:2])
    with pytest.raises(ValueError, match="made for H, C and does not know O"):
        CommitteeCalculator([members[0], member(3, species=("H", "C"))]).get_forces(molecule())
