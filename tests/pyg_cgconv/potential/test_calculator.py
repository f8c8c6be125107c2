import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("ase")
from ase import Atoms, units
from ase.calculators.calculator import PropertyNotImplementedError
from ase.md.verlet import VelocityVerlet

from pyg_cgconv import ASECalculator, CommitteeCalculator

from .for_calculators import SHIFT, called_directly, close, crystal, make, molecule, slab

VOIGT = [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]


# Results


@pytest.mark.parametrize("structure", [molecule, crystal, slab])
def test_energy_and_forces_are_the_potentials(potential, calculator, structure):
    atoms = structure()
    expected = called_directly(potential, atoms)
    assert abs(expected["forces"]).max() > 0.1
    close(calculator.get_potential_energy(atoms), expected["energy"][0])
    close(calculator.get_forces(atoms), expected["forces"])


def test_stress_is_the_potentials(potential, calculator):
    expected = called_directly(potential, crystal(), compute_stress=True)["stress"][0]
    close(calculator.get_stress(crystal()), [expected[component] for component in VOIGT])


def test_free_energy_is_the_energy(calculator):
    atoms = molecule()
    atoms.calc = calculator
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()


@pytest.mark.parametrize("structure", [molecule, crystal, slab])
def test_forces_are_the_slope_of_the_energy(calculator, structure):
    atoms, step = structure(), 1e-4
    forces, slope = calculator.get_forces(atoms), np.zeros((len(atoms), 3))
    for i, x in np.ndindex(slope.shape):
        energies = []
        for sign in (1, -1):
            displaced = atoms.copy()
            displaced.positions[i, x] += sign * step
            energies.append(calculator.get_potential_energy(displaced))
        slope[i, x] = (energies[0] - energies[1]) / (2 * step)
    assert abs(forces).max() > 0.1
    close(forces, -slope, rtol=1e-5, atol=1e-6)


def slab_in_vacuum():
    atoms = crystal()
    atoms.cell[2], atoms.pbc = (0.0, 0.0, 20.0), (True, True, False)
    return atoms


def test_stress_of_a_slab_is_the_slope_with_strain_in_its_plane(calculator):
    atoms = slab_in_vacuum()
    stress = calculator.get_stress(atoms)
    for place, (i, j) in enumerate(VOIGT[:2]):
        energies = []
        for size in (-1e-4, 1e-4):
            strain = np.eye(3)
            strain[i, j] += size
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            energies.append(calculator.get_potential_energy(strained))
        close(stress[place], (energies[1] - energies[0]) / 2e-4 / atoms.get_volume(), rtol=1e-5, atol=1e-9)


def test_stress_of_a_molecule_in_a_box_is_that_of_the_box_repeated(calculator):
    box = molecule()
    box.cell = 30.0 * np.eye(3)
    stress = calculator.get_stress(box)
    box.pbc = True
    close(calculator.get_stress(box), stress)


def test_stress_is_the_slope_with_strain(calculator):
    """With ASE's sign and order, and eV/Angstrom^3."""
    atoms, step = crystal(), 1e-5
    stress, slope = calculator.get_stress(atoms), np.zeros(6)
    for component, (x, y) in enumerate(VOIGT):
        energies = []
        for sign in (1, -1):
            strain = np.zeros((3, 3))
            strain[x, y] += sign * step / 2
            strain[y, x] += sign * step / 2
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
            energies.append(calculator.get_potential_energy(strained))
        slope[component] = (energies[0] - energies[1]) / (2 * step) / atoms.get_volume()
    assert abs(stress).min() > 1e-3
    close(stress, slope, rtol=1e-5, atol=1e-6)


def test_isolated_atom_has_its_shift(calculator):
    atoms = Atoms("O", positions=[[1.0, 2.0, 3.0]], calculator=calculator)
    assert atoms.get_potential_energy() == SHIFT["O"]
    assert atoms.get_forces().tolist() == [[0.0, 0.0, 0.0]]


def test_energy_alone_takes_no_derivatives(calculator):
    calculator.get_potential_energy(crystal())
    assert set(calculator.results) == {"energy", "free_energy"}


def test_forces_come_with_everything(calculator):
    calculator.get_forces(crystal())
    assert set(calculator.results) == {"energy", "free_energy", "forces", "stress"}


@pytest.mark.parametrize("structure", [molecule, crystal, slab])
def test_energies_of_atoms_sum_to_the_energy(calculator, structure):
    atoms = structure()
    energies, energy = calculator.get_potential_energies(atoms), calculator.get_potential_energy(atoms)
    assert energies.shape == (len(atoms),)
    close(energies.sum(), energy)


def test_energies_of_atoms_far_apart_are_those_of_single_atoms(calculator):
    distant = Atoms("CO", positions=[[0.0, 0.0, 0.0], [99.0, 0.0, 0.0]])
    close(calculator.get_potential_energies(distant), [SHIFT["C"], SHIFT["O"]])


def test_forces_and_energies_of_atoms_are_kept_side_by_side(calculator):
    atoms = molecule()
    atoms.calc = calculator
    forces = atoms.get_forces()
    atoms.get_potential_energies()
    assert calculator.results["forces"] is not None
    close(atoms.get_forces(), forces)


def test_charges_are_no_reason_to_compute_again(calculator):
    atoms = molecule()
    calculator.get_forces(atoms)
    atoms.set_initial_charges(np.ones(len(atoms)))
    assert not calculator.calculation_required(atoms, ["forces"])


# Dynamics


def trajectory(calculator, steps, timestep=0.25):
    """Potential and total energies (steps + 1, 2), eV."""
    atoms, energies = molecule(), []
    atoms.calc = calculator
    atoms.set_velocities(0.05 * np.random.default_rng(3).standard_normal((len(atoms), 3)))
    dynamics = VelocityVerlet(atoms, timestep=timestep * units.fs)
    dynamics.attach(lambda: energies.append((atoms.get_potential_energy(), atoms.get_total_energy())))
    dynamics.run(steps)
    return np.array(energies)


@pytest.mark.slow
def test_energy_is_conserved(calculator):
    potential_energy, total = trajectory(calculator, 50).T
    assert np.ptp(potential_energy) > 0.01
    assert np.ptp(total) < 1e-3 * np.ptp(potential_energy)


@pytest.mark.slow
def test_trajectory_does_not_depend_on_the_skin(potential, fresh):
    calculator = ASECalculator(potential, skin=0.1)
    with_skin, without = trajectory(calculator, 50), trajectory(fresh, 50)
    assert 1 < calculator.neighbors.builds < fresh.neighbors.builds / 2
    close(with_skin, without, rtol=0, atol=1e-9)


# Potentials, files, precision


def test_file_of_a_potential(potential, calculator, tmp_path):
    potential.save(tmp_path / "potential.pt")
    loaded = ASECalculator(tmp_path / "potential.pt")
    close(loaded.get_forces(molecule()), calculator.get_forces(molecule()))


def test_path_may_be_a_string(potential, tmp_path):
    potential.save(tmp_path / "potential.pt")
    assert ASECalculator(str(tmp_path / "potential.pt")).potential.hyperparameters == potential.hyperparameters


def test_potential_is_left_as_it_was():
    given = make().train()
    ASECalculator(given, dtype="float32")
    assert given.training
    assert given.validate
    assert given.dtype == torch.float64
    assert all(weight.requires_grad for weight in given.parameters())


def test_later_changes_of_the_potential_do_not_reach_it():
    given = make()
    calculator = ASECalculator(given)
    before = calculator.get_potential_energy(molecule())
    given.shift += 1.0
    calculator.reset()
    assert calculator.get_potential_energy(molecule()) == before


def test_dtype_is_that_asked_for(potential, calculator):
    single = ASECalculator(potential, dtype=torch.float32)
    error = abs(single.get_forces(molecule()) - calculator.get_forces(molecule())).max()
    assert 1e-9 < error < 1e-4


def test_dtype_is_the_potentials_otherwise():
    assert ASECalculator(make(dtype="float32")).potential.dtype == torch.float32


def test_device_is_that_asked_for(potential, calculator, device):
    there = ASECalculator(potential, device=device)
    close(there.get_forces(crystal()), calculator.get_forces(crystal()))
    assert there.potential.shift.device.type == device.type


# Mistakes


def test_unknown_elements_are_named(calculator):
    with pytest.raises(ValueError, match=r"^atoms: .*H, C, O.* does not know N, Xe$"):
        calculator.get_potential_energy(Atoms("HXeN", positions=np.eye(3)))


def test_no_results_of_other_atoms_after_a_mistake(calculator):
    calculator.get_forces(molecule())
    with pytest.raises(ValueError, match="does not know N"):
        calculator.calculate(Atoms("N"), ["forces"])
    assert calculator.results == {}


def test_no_atoms(calculator):
    with pytest.raises(ValueError, match=r"^atoms: missing"):
        calculator.get_potential_energy()


def test_positions_that_are_no_numbers(calculator):
    atoms = molecule()
    calculator.get_forces(atoms)
    atoms.positions[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"^pos: atom 3"):
        calculator.get_forces(atoms)


@pytest.mark.parametrize("structure", [molecule, slab])
def test_stress_needs_a_cell_with_a_volume(calculator, structure):
    with pytest.raises(PropertyNotImplementedError, match=r"^stress: defined where the cell has a volume.*pbc="):
        calculator.get_stress(structure())


@pytest.mark.parametrize("skin", [-0.1, float("inf"), float("nan")])
def test_impossible_skin(potential, skin):
    with pytest.raises(ValueError, match=r"^skin: "):
        ASECalculator(potential, skin=skin)


def test_impossible_dtype(potential):
    with pytest.raises(ValueError, match=r"^dtype: "):
        ASECalculator(potential, dtype="float16")


def test_impossible_device(potential):
    with pytest.raises(ValueError, match=r"^device: 'nowhere'"):
        ASECalculator(potential, device="nowhere")


@pytest.mark.parametrize("kind", [str, Path])
def test_the_folder_of_a_committee_is_named_and_its_members(potential, tmp_path, kind):
    for number in range(2):
        (tmp_path / f"member-{number}").mkdir()
        potential.save(tmp_path / f"member-{number}" / "potential.pt")
    with pytest.raises(
        ValueError, match=r"^potential: .* is the folder of a committee.*CommitteeCalculator\("
    ) as found:
        ASECalculator(kind(tmp_path))
    members = [str(tmp_path / f"member-{number}") for number in range(2)]
    assert str(members) in str(found.value)
    assert len(CommitteeCalculator(members).members) == 2


def test_other_outputs_than_an_energy_are_named():
    with pytest.raises(ValueError, match=r"^readout_irreps: an energy is a single scalar"):
        ASECalculator(make(readout_irreps="1o"))


@pytest.mark.parametrize("given", [None, 3, torch.nn.Identity()])
def test_no_potential(given):
    with pytest.raises(TypeError, match=r"^potential: "):
        ASECalculator(given)


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^potential: '.*missing\.pt': no such file or folder; expected"):
        ASECalculator(tmp_path / "missing.pt")


@pytest.mark.parametrize("content", ["a checkpoint", "text", "nothing", "a folder"])
def test_file_of_something_else(potential, tmp_path, content):
    path = tmp_path / "best.ckpt"
    if content == "a checkpoint":
        torch.save({"state_dict": potential.state_dict(), "hyper_parameters": {}}, path)
    elif content == "a folder":
        path.mkdir()
    else:
        path.write_text("words\n" * 9 if content == "text" else "")
    with pytest.raises(ValueError, match=r"^potential: .*best\.ckpt.*Potential\.save.*potential\.pt"):
        ASECalculator(path)


def test_run_folder_stands_for_its_potential(potential, tmp_path):
    potential.save(tmp_path / "potential.pt")
    close(ASECalculator(tmp_path).get_forces(molecule()), ASECalculator(potential).get_forces(molecule()))


# ASE is optional


@pytest.mark.slow
def test_only_the_calculator_needs_ase_and_says_so():
    script = "import sys; sys.modules['ase'] = None; from pyg_cgconv import *; from pyg_cgconv import ASECalculator"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stderr.splitlines()[-1].startswith("ImportError: ASECalculator needs ASE: pip install")
