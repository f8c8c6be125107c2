"""Molecular dynamics by ASE: momenta at the start, integrators, what is recorded on the way, what is read from it."""

import csv
from dataclasses import asdict, dataclass, fields
from typing import TextIO

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixCom
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.velocitydistribution import Stationary, ZeroRotation
from ase.md.verlet import VelocityVerlet
from scipy.stats import linregress

from train.metrics import MEV_PER_EV

PICOSECOND = 1000 * units.fs
# Singular values of positions below this part of the largest one, or of an Angstrom, span no direction.
FLATNESS = 1e-4


def draw_momenta(atoms: Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Momenta of the Maxwell-Boltzmann distribution at ``temperature``, K.

    The motion of the centre of mass is taken out, of molecules the rotation too: what is left still has the
    temperature, with fewer degrees of freedom. Where atoms are fixed, nothing is taken out.
    """
    # ASE has a function for this line, which was called otherwise before version 3.29.
    spread = np.sqrt(units.kB * temperature * atoms.get_masses())[:, None]
    atoms.set_momenta(spread * rng.standard_normal((len(atoms), 3)))
    if atoms.constraints:
        return
    Stationary(atoms, preserve_temperature=False)
    if not atoms.pbc.any():
        with np.errstate(divide="ignore", invalid="ignore"):  # no inertia about the axis of a linear molecule
            ZeroRotation(atoms, preserve_temperature=False)


def verlet(atoms: Atoms, timestep: float) -> VelocityVerlet:
    """Constant energy; ``timestep`` in fs."""
    return VelocityVerlet(atoms, timestep * units.fs)


def langevin(atoms: Atoms, timestep: float, temperature: float, friction: float, rng: np.random.Generator) -> Langevin:
    """Constant temperature; ``timestep`` in fs, ``temperature`` in K, ``friction`` in 1/ps.

    The centre of mass stays where it is, by a constraint, unless atoms are fixed already.
    """
    if not atoms.constraints:
        atoms.set_constraint(FixCom())
    return Langevin(
        atoms,
        timestep * units.fs,
        temperature_K=temperature,
        friction=friction / PICOSECOND,
        fixcm=False,  # it would not sample the canonical distribution; the constraint does
        rng=rng,
    )


def degrees_of_freedom(atoms: Atoms, thermostat: bool) -> int:
    """Momenta that can vary: those of all atoms, less constraints and what the dynamics conserves.

    A thermostat conserves nothing but constraints. Without one, the momentum of the centre of mass stays zero, as does
    the angular momentum of a molecule, about its axis too if it is linear.
    """
    count = atoms.get_number_of_degrees_of_freedom()
    if thermostat or atoms.constraints:
        return count
    if atoms.pbc.any():
        return count - 3
    return count - 3 - rotations(atoms)


def rotations(atoms: Atoms) -> int:
    """Axes about which the atoms can turn: 3, 2 if they are in line, 0 if there is one."""
    spread = np.linalg.svd(atoms.positions - atoms.positions.mean(axis=0), compute_uv=False)
    spanned = int((spread > FLATNESS * max(1.0, spread[0])).sum())
    return {0: 0, 1: 2}.get(spanned, 3)


@dataclass(frozen=True)
class LogRow:
    """One row of the log; energies in eV, temperature in K."""

    step: int
    time_ps: float
    total_energy_eV: float
    potential_energy_eV: float
    kinetic_energy_eV: float
    temperature_K: float


class EnergyLog:
    """Records energies and temperature whenever it is called, and writes them to a CSV file at once.

    Args:
        file: open for writing text.
        dynamics: what is watched.
        num_degrees: momenta that share the kinetic energy, see :func:`degrees_of_freedom`.

    Raises:
        ValueError: at a call, if the energy is no number any more.
    """

    def __init__(self, file: TextIO, dynamics: MolecularDynamics, num_degrees: int):
        self.file, self.dynamics, self.num_degrees = file, dynamics, num_degrees
        self.rows: list[LogRow] = []
        self._writer = csv.DictWriter(file, [field.name for field in fields(LogRow)])
        self._writer.writeheader()

    def __call__(self) -> None:
        atoms = self.dynamics.atoms
        potential, kinetic = float(atoms.get_potential_energy()), float(atoms.get_kinetic_energy())
        row = LogRow(
            step=self.dynamics.nsteps,
            time_ps=self.dynamics.get_time() / PICOSECOND,
            total_energy_eV=potential + kinetic,
            potential_energy_eV=potential,
            kinetic_energy_eV=kinetic,
            temperature_K=2 * kinetic / (self.num_degrees * units.kB),
        )
        if not np.isfinite(row.total_energy_eV):
            raise ValueError(
                f"the energy at step {row.step} is {row.total_energy_eV}: the dynamics has diverged, try a smaller "
                "timestep, or a potential that was trained on structures like these"
            )
        self.rows.append(row)
        self._writer.writerow(asdict(row))
        self.file.flush()

    def column(self, name: str) -> np.ndarray:
        return np.array([getattr(row, name) for row in self.rows])


def snapshot(atoms: Atoms, time_ps: float) -> Atoms:
    """Positions, momenta, energy and forces as they are now, and when that is."""
    frozen = atoms.copy()
    frozen.info["time_ps"] = time_ps
    results = {name: atoms.calc.results[name] for name in ("energy", "forces")}
    frozen.calc = SinglePointCalculator(frozen, **results)
    return frozen


def energy_drift(time_ps: np.ndarray, total_energy: np.ndarray, num_atoms: int) -> dict[str, float]:
    """Slope of the straight line that fits total energies best, its standard error, and what is left beside it.

    Args:
        time_ps: (rows,) ps, at least three.
        total_energy: (rows,) eV.
        num_atoms: by which all is divided.

    Returns:
        ``energy_drift_meV_per_atom_per_ps``, ``energy_drift_error_meV_per_atom_per_ps`` and the root-mean-square
        residual ``energy_fluctuation_meV_per_atom``.
    """
    energy = MEV_PER_EV * (total_energy - total_energy[0]) / num_atoms
    line = linregress(time_ps, energy)
    residual = energy - line.slope * time_ps - line.intercept
    return {
        "energy_drift_meV_per_atom_per_ps": float(line.slope),
        "energy_drift_error_meV_per_atom_per_ps": float(line.stderr),
        "energy_fluctuation_meV_per_atom": float(np.sqrt(np.square(residual).mean())),
    }
