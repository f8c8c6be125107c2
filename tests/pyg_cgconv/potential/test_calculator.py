import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from pyg_cgconv import Potential, RadiusGraph

pytest.importorskip("ase")
from ase import Atoms, units
from ase.calculators.calculator import PropertyNotImplementedError
from ase.md.verlet import VelocityVerlet

from pyg_cgconv import ASECalculator, CommitteeCalculator

CUTOFF, SKIN = 3.0, 0.5
SHIFT = {"H": -13.5, "C": -1030.0, "O": -2040.0}
VOIGT = [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]


def make(**options):
    torch.manual_seed(1)
    return Potential(
        ["H", "C", "O"],
        CUTOFF,
        channels=2,
        lmax=1,
        layers=2,
        num_radial=3,
        radial_hidden=(4,),
        avg_num_neighbors=4.0,
        shift=SHIFT,
        scale=4.0,
        **{"dtype": "float64", **options},
    )


@pytest.fixture(scope="module")
def potential():
    return make()


@pytest.fixture
def calculator(potential):
    return ASECalculator(potential, skin=SKIN)


@pytest.fixture
def fresh(potential):
    """Looks for neighbours in every step."""
    return ASECalculator(potential, skin=0.0)


def molecule():
    grid = np.stack(np.meshgrid(*[np.arange(2.0)] * 3), axis=-1).reshape(-1, 3)
    return Atoms("HCOHCHOH", positions=1.5 * grid + 0.3 * np.random.default_rng(0).random((8, 3)))


def crystal():
    """Three atoms in a cell smaller than the cutoff."""
    rng = np.random.default_rng(1)
    cell = 2.6 * np.eye(3) + 0.4 * rng.random((3, 3))
    return Atoms("HCO", scaled_positions=rng.random((3, 3)), cell=cell, pbc=True)


def slab():
    atoms = crystal()
    atoms.cell[2], atoms.pbc = 0.0, (True, True, False)
    return atoms


def pair(distance):
    return Atoms("CO", positions=[[0.0, 0.0, 0.0], [distance, 0.0, 0.0]])


def called_directly(potential, atoms, **options):
    data = Data(z=torch.tensor(atoms.numbers), pos=torch.tensor(atoms.positions))
    if atoms.pbc.any():
        data.cell, data.pbc = torch.tensor(atoms.cell.array[None]), torch.tensor(atoms.pbc[None])
    out = potential(RadiusGraph(CUTOFF)(data), create_graph=False, **options)
    return {name: value.numpy() for name, value in out.items()}


def close(actual, expected, rtol=1e-9, atol=1e-11):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


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


# Neighbours


def test_list_is_used_again_while_atoms_move_little(calculator):
    atoms = molecule()
    for _ in range(5):
        calculator.get_forces(atoms)
        atoms.positions[0, 0] += 0.19 * SKIN / 2
    assert calculator.neighbors.builds == 1


@pytest.mark.parametrize("structure", [molecule, crystal, slab])
def test_used_list_gives_what_a_new_one_gives(calculator, fresh, structure):
    atoms = structure()
    before = calculator.get_forces(atoms)
    direction = np.random.default_rng(2).standard_normal((len(atoms), 3))
    atoms.positions += 0.49 * SKIN * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    forces = calculator.get_forces(atoms)
    assert calculator.neighbors.builds == 1
    assert abs(forces - before).max() > 0.1
    close(forces, fresh.get_forces(atoms))
    close(calculator.get_potential_energy(atoms), fresh.get_potential_energy(atoms))


def test_neighbours_that_come_into_reach_are_seen_by_the_used_list(calculator, fresh):
    """From beyond the cutoff to within it, by less than half the skin each."""
    atoms = pair(CUTOFF + 0.6 * SKIN)
    assert calculator.get_potential_energy(atoms) == SHIFT["C"] + SHIFT["O"]
    atoms.positions[:, 0] += [0.49 * SKIN, -0.49 * SKIN]
    energy = calculator.get_potential_energy(atoms)
    assert calculator.neighbors.builds == 1
    assert abs(energy - SHIFT["C"] - SHIFT["O"]) > 1e-5
    close(energy, fresh.get_potential_energy(atoms), rtol=0, atol=1e-9)


def test_neighbours_from_beyond_the_skin_are_seen(calculator, fresh):
    """Each comes nearer by less than the skin, but by more than half of it."""
    atoms = pair(CUTOFF + 1.1 * SKIN)
    calculator.get_potential_energy(atoms)
    atoms.positions[:, 0] += [0.95 * SKIN, -0.95 * SKIN]
    energy = calculator.get_potential_energy(atoms)
    assert abs(energy - SHIFT["C"] - SHIFT["O"]) > 1e-5
    close(energy, fresh.get_potential_energy(atoms), rtol=0, atol=1e-9)


def test_pairs_between_cutoff_and_skin_count_nothing(calculator):
    atoms = pair(CUTOFF + 0.5 * SKIN)
    forces = calculator.get_forces(atoms)
    assert calculator.neighbors(atoms).num_edges == 2
    assert calculator.get_potential_energy(atoms) == SHIFT["C"] + SHIFT["O"]
    assert (forces == 0).all()


def deform(atoms, deformation):
    atoms.set_cell(atoms.cell.array @ deformation, scale_atoms=True)


def test_list_is_used_again_while_the_cell_changes_little(calculator, fresh):
    atoms, rng = crystal(), np.random.default_rng(2)
    before = calculator.get_stress(atoms)
    for _ in range(3):
        deform(atoms, np.eye(3) + 0.005 * rng.standard_normal((3, 3)))
        atoms.positions += 0.01 * SKIN * rng.standard_normal(atoms.positions.shape)
        stress = calculator.get_stress(atoms)
        close(stress, fresh.get_stress(atoms))
        close(calculator.get_forces(atoms), fresh.get_forces(atoms))
    assert calculator.neighbors.builds == 1
    assert abs(stress - before).max() > 1e-3


def images(distance):
    """An atom whose nearest images are at this distance."""
    return Atoms("C", cell=3 * [distance], pbc=True)


@pytest.mark.parametrize(("start", "builds"), [(CUTOFF + 0.2 * SKIN, 1), (CUTOFF + 1.1 * SKIN, 2)])
def test_images_that_a_smaller_cell_brings_into_reach_are_seen(calculator, fresh, start, builds):
    """From beyond the cutoff to within it: of the list, or from beyond its skin."""
    atoms = images(start)
    assert calculator.get_potential_energy(atoms) == SHIFT["C"]
    deform(atoms, np.eye(3) * (CUTOFF - 0.2 * SKIN) / start)
    energy = calculator.get_potential_energy(atoms)
    assert calculator.neighbors.builds == builds
    assert abs(energy - SHIFT["C"]) > 1e-5
    close(energy, fresh.get_potential_energy(atoms), rtol=0, atol=1e-9)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_cell_that_is_not_finite_is_an_error_also_of_a_used_list(calculator, number):
    atoms = crystal()
    calculator.get_forces(atoms)
    atoms.cell.array[0, 0] = number
    with pytest.raises(ValueError, match="cell: expected finite"):
        calculator.get_forces(atoms)


def test_a_molecule_in_a_cell_without_volume(calculator):
    """Which changes, as a box around it may."""
    atoms = molecule()
    expected = calculator.get_forces(atoms)
    for height in (5.0, 6.0):
        atoms.cell = [[5, 0, 0], [5, 0, 0], [0, 0, height]]
        close(calculator.get_forces(atoms), expected)
    with pytest.raises(Exception, match="volume"):
        calculator.get_stress(atoms)


@pytest.mark.parametrize("charge", [None, "one", [1.0, 2.0]])
def test_a_charge_that_is_no_number_is_named(calculator, charge):
    atoms = molecule()
    atoms.info["charge"] = charge
    with pytest.raises(ValueError, match=r"atoms.info\['charge'\]: expected the total charge"):
        calculator.get_forces(atoms)


def moved_far(atoms):
    atoms.positions[1] += [0.0, 0.51 * SKIN, 0.0]


def smaller_cell(atoms):
    atoms.set_cell(0.9 * atoms.cell.array)


def strained(atoms):
    atoms.set_cell(1.001 * atoms.cell.array, scale_atoms=True)


def less_periodic(atoms):
    atoms.pbc = (True, True, False)


def other_species(atoms):
    atoms.numbers[:2] = atoms.numbers[1::-1]


def exchanged_positions(atoms):
    atoms.positions[:2] = atoms.positions[1::-1]


def another_atom(atoms):
    atoms.append("H")
    atoms.positions[-1] = [0.0, 1.0, 1.0]


def one_atom_less(atoms):
    del atoms[1]


CHANGES = [
    moved_far,
    smaller_cell,
    strained,
    less_periodic,
    other_species,
    exchanged_positions,
    another_atom,
    one_atom_less,
]


@pytest.mark.parametrize("change", [change for change in CHANGES if change is not strained])
def test_list_is_made_again_after(calculator, change):
    atoms = crystal()
    calculator.get_forces(atoms)
    change(atoms)
    calculator.get_forces(atoms)
    assert calculator.neighbors.builds == 2


@pytest.mark.parametrize("change", CHANGES)
def test_forces_are_right_after(potential, calculator, change):
    atoms = crystal()
    before = calculator.get_forces(atoms)
    change(atoms)
    forces = calculator.get_forces(atoms)
    assert forces.shape != before.shape or abs(forces - before).max() > 1e-4
    close(forces, called_directly(potential, atoms)["forces"])


def test_small_steps_add_up(calculator):
    atoms = crystal()
    for _ in range(3):
        calculator.get_forces(atoms)
        atoms.positions[1, 2] += 0.2 * SKIN
    calculator.get_forces(atoms)
    assert calculator.neighbors.builds == 2


def test_without_a_skin_every_move_makes_a_list(fresh):
    atoms = molecule()
    for _ in range(3):
        fresh.get_forces(atoms)
        atoms.positions[0, 0] += 1e-6
    assert fresh.neighbors.builds == 3


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


def test_energy_is_conserved(calculator):
    potential_energy, total = trajectory(calculator, 50).T
    assert np.ptp(potential_energy) > 0.01
    assert np.ptp(total) < 1e-3 * np.ptp(potential_energy)


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
