import csv
import json
from dataclasses import replace

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.md.verlet import VelocityVerlet

from pyg_cgconv import ASECalculator, Potential
from train.md import run
from train.md_options import DynamicsOptions, RecordOptions
from train.trained import ComputeOptions, ModelFile

from .conftest import GEOMETRY, NUMBERS, spring_atoms

DOUBLE = ComputeOptions(device="cpu", dtype="float64")


pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture(scope="module")
def structure(tmp_path_factory):
    """Two structures in a file, the last one the springs' geometry."""
    file = tmp_path_factory.mktemp("structure") / "start.xyz"
    ase.io.write(file, [*spring_atoms(1), Atoms(NUMBERS, GEOMETRY)])
    return file


def moved(trained, structure, run_dir, record=None, compute=DOUBLE, **options):
    options = DynamicsOptions(structure, **{"temperature": 100.0, "steps": 40, **options})
    return run(ModelFile(trained), options, RecordOptions(run_dir, **(record or {})), compute)


def read_log(folder) -> dict[str, np.ndarray]:
    with open(folder / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


@pytest.fixture(scope="module")
def constant_energy(trained, structure, tmp_path_factory):
    folder = tmp_path_factory.mktemp("md") / "nve"
    summary = moved(trained, structure, folder, steps=200, timestep=0.25, record={"log_interval": 2})
    return folder, summary


@pytest.mark.slow
def test_folder_holds_everything(constant_energy):
    folder, summary = constant_energy
    written = {"trajectory.xyz", "log.csv", "energy.png", "md.json", "config.yaml", "state.npz"}
    assert {path.name for path in folder.iterdir()} == written
    assert json.loads((folder / "md.json").read_text()) == summary
    assert (folder / "energy.png").read_bytes().startswith(b"\x89PNG")
    assert (summary["atoms"], summary["steps"], summary["options"]["dtype"]) == (5, 200, "float64")


@pytest.mark.slow
def test_trajectory_is_that_of_ase(trained, constant_energy):
    """From the momenta in the trajectory, by a calculator without a skin and the integrator alone."""
    found = ase.io.read(constant_energy[0] / "trajectory.xyz", ":")
    assert len(found) == 21
    atoms = found[0].copy()
    potential = ASECalculator(trained / "potential.pt", dtype="float64", skin=0.0)
    atoms.calc = potential
    np.testing.assert_allclose(found[0].get_forces(), atoms.get_forces(), atol=1e-5)
    VelocityVerlet(atoms, 0.25 * units.fs).run(200)
    np.testing.assert_allclose(found[-1].positions, atoms.positions, atol=1e-4)  # eight digits are written
    assert found[-1].get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
    assert abs(found[-1].positions - found[0].positions).max() > 0.02
    assert found[-1].info["time_ps"] == pytest.approx(0.05)


@pytest.mark.slow
def test_structure_is_the_last_of_the_file(constant_energy):
    first = ase.io.read(constant_energy[0] / "trajectory.xyz", 0)
    np.testing.assert_allclose(first.positions, GEOMETRY, atol=1e-8)
    np.testing.assert_allclose(first.get_momenta().sum(axis=0), 0.0, atol=1e-6)
    np.testing.assert_allclose(first.get_angular_momentum(), 0.0, atol=1e-6)


@pytest.mark.slow
def test_energy_is_conserved_and_the_drift_is_that_of_the_log(constant_energy):
    folder, summary = constant_energy
    log = read_log(folder)
    assert len(log["step"]) == 101
    assert np.ptp(log["total_energy_eV"]) < 0.02 * np.ptp(log["potential_energy_eV"])
    slope, _ = np.polyfit(log["time_ps"], log["total_energy_eV"] - log["total_energy_eV"].mean(), 1)
    assert summary["energy_drift_meV_per_atom_per_ps"] == pytest.approx(1000 * slope / 5, rel=1e-6)
    temperature = log["temperature_K"][50:]
    assert summary["temperature_mean_K"] == pytest.approx(temperature.mean())


@pytest.mark.slow
def test_neighbour_lists_are_used_again(constant_energy):
    assert 1 <= constant_energy[1]["neighbor_lists"] < 20


@pytest.mark.slow
def test_constant_temperature_has_no_drift_and_other_seeds_give_other_runs(trained, structure, tmp_path):
    logs = []
    for number, seed in enumerate((1, 1, 2)):
        folder = tmp_path / str(number)
        summary = moved(trained, structure, folder, ensemble="nvt", seed=seed, friction=50.0)
        assert "energy_drift_meV_per_atom_per_ps" not in summary
        logs.append(read_log(folder)["total_energy_eV"])
    assert (logs[0] == logs[1]).all()
    assert (logs[0] != logs[2]).any()
    assert np.ptp(logs[0]) > 1e-4  # the thermostat changes it


@pytest.mark.slow
def test_velocities_of_the_file_are_taken(trained, constant_energy, tmp_path):
    folder, _ = constant_energy
    start = folder / "trajectory.xyz"
    moved(trained, start, tmp_path / "again", velocities="file", frame=3, steps=40, timestep=0.25)
    expected, found = ase.io.read(start, 7), ase.io.read(tmp_path / "again" / "trajectory.xyz", -1)
    np.testing.assert_allclose(found.positions, expected.positions, atol=1e-6)


def test_time_gives_the_steps(structure):
    assert DynamicsOptions(structure, time=0.1, timestep=0.25).num_steps == 400
    assert DynamicsOptions(structure, steps=7).num_steps == 7
    assert DynamicsOptions(structure).num_steps == 1000


def test_binary_trajectory(trained, structure, tmp_path):
    moved(trained, structure, tmp_path / "run", steps=20, record={"trajectory": "traj", "trajectory_interval": 5})
    found = ase.io.read(tmp_path / "run" / "trajectory.traj", ":")
    assert len(found) == 5
    assert found[2].get_forces().shape == (5, 3)
    assert not (tmp_path / "run" / "trajectory.xyz").exists()


@pytest.mark.slow
def test_device_is_that_asked_for(trained, structure, constant_energy, tmp_path, device):
    compute = replace(DOUBLE, device=device.type)
    moved(trained, structure, tmp_path / "run", compute=compute, timestep=0.25)
    expected, found = read_log(constant_energy[0]), read_log(tmp_path / "run")
    np.testing.assert_allclose(found["total_energy_eV"][-1], expected["total_energy_eV"][20], rtol=0, atol=1e-8)


@pytest.mark.slow
def test_precision_is_that_asked_for(trained, structure, tmp_path):
    energies = []
    for dtype in ("float32", "float64"):
        moved(trained, structure, tmp_path / dtype, compute=replace(DOUBLE, dtype=dtype), steps=20)
        energies.append(read_log(tmp_path / dtype)["potential_energy_eV"])
    assert 1e-9 < abs(energies[0] - energies[1]).max() < 1e-2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timestep": 0.0}, "timestep=0.0: expected a number above 0"),
        ({"temperature": -1.0}, "temperature=-1.0: expected 0 or more"),
        ({"steps": 5, "time": 1.0}, "steps=5 and time=1.0: give one of them"),
        ({"steps": 0}, "steps=0.*expected one step or more"),
        ({"steps": 15}, "log_interval=10: 15 steps give 2 lines of the log, expected 3 or more"),
        ({"velocities": "file"}, "velocities='file', but structure=.* has none"),
        ({"frame": 9}, "ASE cannot read frame 9"),
    ],
)
def test_mistakes_are_named(trained, structure, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        moved(trained, structure, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_unknown_elements_are_named(trained, tmp_path):
    ase.io.write(tmp_path / "xenon.xyz", Atoms("Xe2", positions=[[0, 0, 0], [3, 0, 0]]))
    with pytest.raises(ValueError, match="does not know Xe"):
        moved(trained, tmp_path / "xenon.xyz", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_single_atom_is_refused(trained, tmp_path):
    ase.io.write(tmp_path / "atom.xyz", Atoms("H"))
    with pytest.raises(ValueError, match="has 1 atoms: expected two or more"):
        moved(trained, tmp_path / "atom.xyz", tmp_path / "run")


def test_missing_structures_are_named(trained, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"structure='.*none\.xyz': no such file"):
        moved(trained, tmp_path / "none.xyz", tmp_path / "run")


@pytest.mark.slow
def test_nothing_is_overwritten(trained, structure, constant_energy):
    with pytest.raises(ValueError, match=r"run_dir=.* holds something already"):
        moved(trained, structure, constant_energy[0])


@pytest.mark.slow
def test_constant_pressure_of_a_crystal(tmp_path):
    torch.manual_seed(0)
    size = dict(channels=4, lmax=1, layers=1, radial_hidden=(8,), avg_num_neighbors=12.0)
    Potential(["Cu"], 3.5, **size, scale=2.0).save(tmp_path / "model.pt")
    ase.io.write(tmp_path / "start.xyz", bulk("Cu", cubic=True))
    options = dict(ensemble="npt", pressure=5.0, barostat_time=0.1, friction=50.0, temperature=300.0)
    summary = moved(tmp_path / "model.pt", tmp_path / "start.xyz", tmp_path / "run", steps=60, **options)
    log, trajectory = read_log(tmp_path / "run"), ase.io.read(tmp_path / "run" / "trajectory.xyz", ":")
    assert {"pressure_GPa", "volume_A3"} < log.keys()
    np.testing.assert_allclose([atoms.get_volume() for atoms in trajectory], log["volume_A3"], rtol=1e-6)
    assert np.ptp(log["volume_A3"]) > 0.01
    half = len(log["step"]) // 2
    assert summary["pressure_mean_GPa"] == pytest.approx(log["pressure_GPa"][half:].mean())
    assert summary["volume_mean_A3"] == pytest.approx(log["volume_A3"][half:].mean())
    last = trajectory[-1]
    last.calc = ASECalculator(tmp_path / "model.pt", dtype="float64")
    expected = -last.get_stress(include_ideal_gas=True)[:3].mean() / units.GPa
    assert log["pressure_GPa"][-1] == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_molecules_have_no_pressure(constant_energy):
    assert "pressure_GPa" not in read_log(constant_energy[0])
    assert "pressure_mean_GPa" not in constant_energy[1]
