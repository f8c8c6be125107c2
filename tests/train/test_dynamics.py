"""Dynamics of a harmonic solid, whose averages are known: every degree of freedom has kT / 2."""

import io

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.harmonic import SpringCalculator
from ase.constraints import FixAtoms

from train.dynamics import (
    EnergyLog,
    degrees_of_freedom,
    draw_momenta,
    energy_drift,
    langevin,
    rotations,
    snapshot,
    verlet,
)

TEMPERATURE = 400.0


def einstein_solid(num_atoms: int = 8) -> Atoms:
    """Unequal atoms, each bound to its place by a spring."""
    rng = np.random.default_rng(0)
    atoms = Atoms("HC" * (num_atoms // 2), positions=6.0 * rng.random((num_atoms, 3)))
    atoms.calc = SpringCalculator(atoms.positions.copy(), k=5.0)
    return atoms


def recorded(dynamics, steps: int, thermostat: bool, interval: int = 1) -> EnergyLog:
    log = EnergyLog(io.StringIO(), dynamics, degrees_of_freedom(dynamics.atoms, thermostat))
    dynamics.attach(log, interval=interval)
    dynamics.run(steps)
    return log


# Momenta at the start


def test_momenta_have_no_drift_and_molecules_do_not_rotate():
    atoms = einstein_solid()
    draw_momenta(atoms, TEMPERATURE, np.random.default_rng(1))
    assert abs(atoms.get_momenta()).max() > 0.5
    np.testing.assert_allclose(atoms.get_momenta().sum(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(atoms.get_angular_momentum(), 0.0, atol=1e-10)


def test_crystals_keep_their_angular_momentum():
    atoms = einstein_solid()
    atoms.set_cell(6 * np.eye(3))
    atoms.pbc = True
    draw_momenta(atoms, TEMPERATURE, np.random.default_rng(1))
    np.testing.assert_allclose(atoms.get_momenta().sum(axis=0), 0.0, atol=1e-12)
    assert np.linalg.norm(atoms.get_angular_momentum()) > 1.0


def test_fixed_atoms_do_not_move():
    atoms = einstein_solid()
    atoms.set_constraint(FixAtoms([0, 3]))
    draw_momenta(atoms, TEMPERATURE, np.random.default_rng(1))
    moving = np.linalg.norm(atoms.get_momenta(), axis=1) > 0
    assert moving.tolist() == [False, True, True, False, True, True, True, True]


@pytest.mark.slow
@pytest.mark.parametrize("make", [einstein_solid, lambda: molecule("H2O"), lambda: molecule("CO2")])
def test_momenta_have_the_temperature(make):
    """Each degree of freedom that is left has kT / 2 on average, whatever was taken out."""
    atoms, rng = make(), np.random.default_rng(2)
    kinetic = []
    for _ in range(2000):
        draw_momenta(atoms, TEMPERATURE, rng)
        kinetic.append(atoms.get_kinetic_energy())
    share = np.array(kinetic) / (0.5 * units.kB * TEMPERATURE * degrees_of_freedom(atoms, thermostat=False))
    assert share.mean() == pytest.approx(1.0, abs=4 * share.std() / np.sqrt(len(share)))


def test_equal_seeds_give_equal_momenta():
    first, again, other = einstein_solid(), einstein_solid(), einstein_solid()
    for atoms, seed in ((first, 1), (again, 1), (other, 2)):
        draw_momenta(atoms, TEMPERATURE, np.random.default_rng(seed))
    assert (first.get_momenta() == again.get_momenta()).all()
    assert (first.get_momenta() != other.get_momenta()).any()


# Degrees of freedom


@pytest.mark.parametrize(("name", "count"), [("CO2", 2), ("H2O", 3), ("CH4", 3), ("H2", 2), ("O", 0)])
def test_axes_of_rotation(name, count):
    atoms = molecule(name)
    atoms.rotate(33, (1, 2, 3))
    assert rotations(atoms) == count


def test_degrees_of_freedom_are_those_that_vary():
    water, crystal, clamped = molecule("H2O"), molecule("H2O", cell=[5, 5, 5], pbc=True), molecule("H2O")
    clamped.set_constraint(FixAtoms([0]))
    assert [degrees_of_freedom(atoms, thermostat=False) for atoms in (water, crystal, clamped)] == [3, 6, 6]
    assert [degrees_of_freedom(atoms, thermostat=True) for atoms in (water, clamped)] == [9, 6]


# Integrators


@pytest.mark.slow
def test_langevin_keeps_the_temperature_and_the_centre_of_mass():
    atoms = einstein_solid()
    start = atoms.get_center_of_mass()
    rng = np.random.default_rng(3)
    draw_momenta(atoms, TEMPERATURE, rng)
    dynamics = langevin(atoms, timestep=1.0, temperature=TEMPERATURE, friction=100.0, rng=rng)
    temperature = recorded(dynamics, 3000, thermostat=True, interval=15).column("temperature_K")[20:]
    assert degrees_of_freedom(atoms, thermostat=True) == 3 * 8 - 3
    spread = TEMPERATURE * np.sqrt(2 / (3 * 8 - 3))  # of the canonical distribution
    assert temperature.std() == pytest.approx(spread, rel=0.25)
    assert temperature.mean() == pytest.approx(TEMPERATURE, abs=4 * spread / np.sqrt(len(temperature)))
    np.testing.assert_allclose(atoms.get_center_of_mass(), start, atol=1e-8)


def test_langevin_repeats_itself():
    positions = []
    for seed in (1, 1, 2):
        atoms, rng = einstein_solid(), np.random.default_rng(seed)
        langevin(atoms, timestep=1.0, temperature=TEMPERATURE, friction=10.0, rng=rng).run(20)
        positions.append(atoms.positions)
    assert (positions[0] == positions[1]).all()
    assert (positions[0] != positions[2]).any()


def test_verlet_keeps_the_energy():
    atoms = einstein_solid()
    draw_momenta(atoms, TEMPERATURE, np.random.default_rng(4))
    log = recorded(verlet(atoms, timestep=0.5), 400, thermostat=False)
    total = log.column("total_energy_eV")
    assert np.ptp(log.column("potential_energy_eV")) > 0.1
    assert np.ptp(total) < 2e-3 * np.ptp(log.column("potential_energy_eV"))
    drift = energy_drift(log.column("time_ps"), total, len(atoms))
    assert abs(drift["energy_drift_meV_per_atom_per_ps"]) < 0.1


# Records


def test_log_has_what_ase_says():
    atoms = einstein_solid()
    draw_momenta(atoms, TEMPERATURE, np.random.default_rng(5))
    log = recorded(verlet(atoms, timestep=0.5), 10, thermostat=False, interval=5)
    assert log.column("step").tolist() == [0, 5, 10]
    np.testing.assert_allclose(log.column("time_ps"), [0.0, 0.0025, 0.005])
    assert log.rows[-1].total_energy_eV == atoms.get_total_energy()
    assert log.rows[-1].kinetic_energy_eV == atoms.get_kinetic_energy()
    # ASE's temperature is that of 3 n degrees of freedom.
    assert log.rows[-1].temperature_K == pytest.approx(atoms.get_temperature() * 24 / 18)
    lines = log.file.getvalue().split()
    assert lines[0] == "step,time_ps,total_energy_eV,potential_energy_eV,kinetic_energy_eV,temperature_K"
    assert [float(number) for number in lines[-1].split(",")] == list(vars(log.rows[-1]).values())


def test_diverged_dynamics_are_named():
    atoms = einstein_solid()
    atoms.set_momenta(np.full((8, 3), np.inf))
    with pytest.raises(
        ValueError, match="the energy at step 0 is inf: the dynamics has diverged, try a smaller timestep"
    ):
        recorded(verlet(atoms, timestep=0.5), 1, thermostat=False)


def test_snapshot_does_not_change_with_the_atoms():
    atoms = einstein_solid()
    draw_momenta(atoms, TEMPERATURE, np.random.default_rng(5))
    dynamics = verlet(atoms, timestep=0.5)
    dynamics.run(3)
    frozen = snapshot(atoms, 0.25)
    energy, forces, momenta = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_momenta()
    dynamics.run(3)
    assert atoms.get_potential_energy() != energy
    assert frozen.get_potential_energy() == energy
    assert (frozen.get_forces() == forces).all()
    assert (frozen.get_momenta() == momenta).all()
    assert frozen.info["time_ps"] == 0.25


def test_drift_is_the_slope_for_an_atom():
    time_ps = np.linspace(0.0, 2.0, 201)
    wave = 1e-3 * np.sin(20 * np.pi * time_ps)
    drift = energy_drift(time_ps, -4000.0 + 0.004 * time_ps + wave, num_atoms=8)
    assert drift["energy_drift_meV_per_atom_per_ps"] == pytest.approx(0.5, abs=0.02)
    assert drift["energy_fluctuation_meV_per_atom"] == pytest.approx(0.125 / np.sqrt(2), rel=0.05)
    assert 0 < drift["energy_drift_error_meV_per_atom_per_ps"] < 0.02
