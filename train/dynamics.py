"""Molecular dynamics by ASE: momenta at the start, integrators, what is recorded on the way, what is read from it."""

import csv
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixCom
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.velocitydistribution import Stationary, ZeroRotation
from ase.md.verlet import VelocityVerlet
from scipy.stats import linregress

from train.md_options import DynamicsOptions
from train.metrics import MEV_PER_EV

PICOSECOND = 1000 * units.fs
# Singular values of positions below this part of the largest one, or of an Angstrom, span no direction.
FLATNESS = 1e-4


class Dynamics(Protocol):
    """What a log reads: a :class:`ase.md.md.MolecularDynamics`, or one of several that move together."""

    @property
    def atoms(self) -> Atoms: ...

    @property
    def nsteps(self) -> int: ...

    def get_time(self) -> float: ...


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


def npt(atoms: Atoms, options: DynamicsOptions, rng: np.random.Generator) -> MolecularDynamics:
    """Constant temperature and pressure, by Langevin dynamics of atoms and cell (Quigley and Probert, `J. Chem. Phys.
    120, 11432 <https://doi.org/10.1063/1.1755657>`_).

    The centre of mass is a degree of freedom like others.

    Raises:
        ValueError: the structure is not periodic in all directions, atoms are fixed, or ASE is too old.
    """
    if not (atoms.pbc.all() and atoms.cell.rank == 3):
        raise ValueError(
            f"ensemble='npt': the structure has pbc={atoms.pbc.tolist()} and cell={atoms.cell.tolist()}, expected a "
            "crystal that is periodic in all directions; take nvt"
        )
    if atoms.constraints:
        raise ValueError(f"ensemble='npt': the structure has constraints, {atoms.constraints}; take nvt")
    try:
        from train.barostat import LangevinBarostat
    except ImportError as error:
        raise ValueError("ensemble='npt' needs ase.md.langevinbaoab: install a later ASE; 3.29 has it") from error
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using heuristic P_mass")
        return LangevinBarostat(
            atoms,
            options.timestep * units.fs,
            temperature_K=options.temperature,
            externalstress=-options.pressure * units.GPa,
            hydrostatic=options.barostat == "isotropic",
            T_tau=PICOSECOND / options.friction,
            P_tau=options.barostat_time * PICOSECOND,
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


@dataclass(frozen=True)
class CrystalLogRow(LogRow):
    """What a crystal has, too: the pressure, of the motion of atoms and of forces between them, and the volume."""

    pressure_GPa: float
    volume_A3: float


class EnergyLog:
    """Records energies and temperature whenever it is called, and writes them to a CSV file at once.

    Args:
        file: open for writing text.
        dynamics: what is watched.
        num_degrees: momenta that share the kinetic energy, see :func:`degrees_of_freedom`.
        rows: those of the run that goes on; ``file`` has them already.

    Rows of a structure that is periodic in all directions are :class:`CrystalLogRow`.

    Raises:
        ValueError: at a call, if the energy is no number any more.
    """

    def __init__(self, file: TextIO, dynamics: Dynamics, num_degrees: int, rows: Sequence[LogRow] = ()):
        self.file, self.dynamics, self.num_degrees = file, dynamics, num_degrees
        self.rows: list[LogRow] = list(rows)
        self._writer = csv.DictWriter(file, [field.name for field in fields(row_type(dynamics.atoms))])
        if not rows:
            self._writer.writeheader()

    def __call__(self) -> None:
        atoms = self.dynamics.atoms
        potential, kinetic = float(atoms.get_potential_energy()), float(atoms.get_kinetic_energy())
        values: dict[str, Any] = dict(
            step=self.dynamics.nsteps,
            time_ps=self.dynamics.get_time() / PICOSECOND,
            total_energy_eV=potential + kinetic,
            potential_energy_eV=potential,
            kinetic_energy_eV=kinetic,
            temperature_K=2 * kinetic / (self.num_degrees * units.kB),
        )
        if not np.isfinite(values["total_energy_eV"]):
            raise ValueError(
                f"the energy at step {values['step']} is {values['total_energy_eV']}: the dynamics has diverged, try a "
                "smaller timestep, or a potential that was trained on structures like these"
            )
        if row_type(atoms) is CrystalLogRow:
            values |= dict(pressure_GPa=pressure(atoms), volume_A3=float(atoms.get_volume()))
        row = row_type(atoms)(**values)
        self.rows.append(row)
        self._writer.writerow(asdict(row))
        self.file.flush()

    def column(self, name: str) -> np.ndarray:
        return np.array([getattr(row, name) for row in self.rows])


def row_type(atoms: Atoms) -> type[LogRow]:
    return CrystalLogRow if atoms.pbc.all() and atoms.cell.rank == 3 else LogRow


def read_rows(path: Path, kind: type[LogRow]) -> list[LogRow]:
    """The rows that an :class:`EnergyLog` wrote."""
    with open(path, newline="") as file:
        rows: list[dict[str, Any]] = [{n: float(value) for n, value in row.items()} for row in csv.DictReader(file)]
    return [kind(**row | {"step": int(row["step"])}) for row in rows]


def pressure(atoms: Atoms) -> float:
    """GPa, with the part of the motion of atoms; positive where the crystal wants to expand."""
    return float(-atoms.get_stress(include_ideal_gas=True)[:3].mean() / units.GPa)


def snapshot(atoms: Atoms, time_ps: float) -> Atoms:
    """Positions, momenta, energy, forces and, of crystals, the stress as they are now, and when that is."""
    frozen = atoms.copy()
    frozen.info["time_ps"] = time_ps
    names = ("energy", "forces", "stress") if row_type(atoms) is CrystalLogRow else ("energy", "forces")
    results = {name: atoms.calc.results[name] for name in names}
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
