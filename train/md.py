"""Molecular dynamics with a trained potential, by ASE.

Constant energy (nve, velocity Verlet) or constant temperature (nvt, Langevin). The results folder gets a trajectory
with momenta, energies and forces, log.csv, energy.png, and md.json with the mean temperature. For nve the plot and
md.json have the energy drift, for nvt the plot has the temperature and that of the thermostat.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, cast

import ase.io
import numpy as np
from ase import Atoms
from ase.io.trajectory import Trajectory
from ase.md.md import MolecularDynamics
from tqdm import tqdm

from pyg_cgconv import ASECalculator
from train.dynamics import (
    PICOSECOND,
    EnergyLog,
    degrees_of_freedom,
    draw_momenta,
    energy_drift,
    langevin,
    snapshot,
    verlet,
)
from train.dynamics_plot import energy_plot
from train.options import require_at_least_zero, require_positive
from train.outputs import create_results_folder, writing_to
from train.report import versions, write_json
from train.trained import ComputeOptions, ModelFile, load_trained

FEMTOSECONDS_PER_PICOSECOND = 1000.0
ROWS_FOR_A_LINE = 3  # its slope has no error with fewer


@dataclass(frozen=True)
class DynamicsOptions:
    """Dynamics: what moves, how and how long.

    Args:
        structure: file with the structure to start from, of any format that ASE reads. Atoms that it fixes stay fixed.
        frame: which structure of the file, counted from 0; -1 is the last.
        ensemble: nve keeps the energy, nvt the temperature.
        temperature: K. Of the momenta at the start and of the thermostat. Without a thermostat, a structure at rest in
            its minimum ends at about half of it.
        velocities: maxwell draws them, without motion of the centre of mass or rotation; file takes those of the
            structure, such as the last one of a trajectory.
        timestep: fs.
        steps: how many (default: 1000, or as time says).
        time: ps, instead of steps.
        friction: of the thermostat, 1/ps.
        seed: of the momenta and of the thermostat.
        skin: Angstrom by which neighbours are looked for beyond the cutoff, so that a list lasts for more steps.
    """

    structure: Path
    frame: int = -1
    ensemble: Literal["nve", "nvt"] = "nve"
    temperature: float = 300.0
    velocities: Literal["maxwell", "file"] = "maxwell"
    timestep: float = 0.5
    steps: int | None = None
    time: float | None = None
    friction: float = 10.0
    seed: int = 0
    skin: float = 0.5

    def __post_init__(self):
        require_positive(self, "timestep", "friction")
        require_at_least_zero(self, "temperature", "seed", "skin")
        if self.steps is not None and self.time is not None:
            raise ValueError(f"steps={self.steps} and time={self.time}: give one of them")
        if self.num_steps < 1:
            raise ValueError(
                f"steps={self.steps}, time={self.time} with timestep={self.timestep}: expected one step or more"
            )

    @property
    def num_steps(self) -> int:
        if self.time is not None:
            return round(self.time * FEMTOSECONDS_PER_PICOSECOND / self.timestep)
        return 1000 if self.steps is None else self.steps


@dataclass(frozen=True)
class RecordOptions:
    """Record: what is kept.

    Args:
        run_dir: folder for the results (default: runs/md-<formula>-<time>).
        log_interval: steps between two lines of log.csv.
        trajectory_interval: steps between two structures of the trajectory.
        trajectory: extended XYZ (extxyz) or ASE's own binary format (traj).
    """

    run_dir: Path | None = None
    log_interval: int = 10
    trajectory_interval: int = 10
    trajectory: Literal["extxyz", "traj"] = "extxyz"

    def __post_init__(self):
        require_positive(self, "log_interval", "trajectory_interval")


OPTIONS = (ModelFile, DynamicsOptions, RecordOptions, ComputeOptions)


def run(model: ModelFile, options: DynamicsOptions, record: RecordOptions, compute: ComputeOptions) -> dict:
    """Runs the dynamics and returns what is written to ``md.json``."""
    rows = options.num_steps // record.log_interval + 1
    if rows < ROWS_FOR_A_LINE:
        raise ValueError(
            f"log_interval={record.log_interval}: {options.num_steps} steps give {rows} lines of the log, expected "
            f"{ROWS_FOR_A_LINE} or more: choose a smaller interval or more steps"
        )
    compute.use_threads()
    atoms = read_structure(options)
    potential = load_trained(model.model, **compute.overrides)
    atoms.calc = ASECalculator(potential, device=compute.torch_device, skin=options.skin)
    atoms.get_forces()  # finds elements that the potential does not know before a folder is made
    dynamics = set_up(atoms, options)
    folder = create_results_folder(record.run_dir, "md", atoms.get_chemical_formula())
    with writing_to(folder):
        log, seconds = move(dynamics, options, record, folder)
        summary = summarize(model, options, compute, log, seconds)
        write_json(folder / "md.json", summary)
        target = options.temperature if options.ensemble == "nvt" else None
        energy_plot(folder / "energy.png", log, f"{atoms.get_chemical_formula()}, {options.ensemble.upper()}", target)
    print(describe(summary, folder), flush=True)
    return summary


def move(
    dynamics: MolecularDynamics, options: DynamicsOptions, record: RecordOptions, folder: Path
) -> tuple[EnergyLog, float]:
    """Does the steps; leaves log and trajectory in ``folder``. Returns the log and the seconds that it took."""
    with (
        open(folder / "log.csv", "w", newline="") as file,
        trajectory_writer(folder, dynamics, record) as write,
        progress(options.num_steps) as bar,
    ):
        log = EnergyLog(file, dynamics, degrees_of_freedom(dynamics.atoms, options.ensemble == "nvt"))
        dynamics.attach(log, interval=record.log_interval)
        dynamics.attach(write, interval=record.trajectory_interval)
        dynamics.attach(lambda: bar.update(dynamics.nsteps - bar.n), interval=record.log_interval)
        start = time.perf_counter()
        dynamics.run(options.num_steps)
        return log, time.perf_counter() - start


def summarize(
    model: ModelFile, options: DynamicsOptions, compute: ComputeOptions, log: EnergyLog, seconds: float
) -> dict:
    """What is written to ``md.json``."""
    atoms = log.dynamics.atoms
    facts = asdict(options) | asdict(compute) | {"model": model.model}
    facts |= {name: atoms.calc.potential.hyperparameters[name] for name in ("dtype", "backend")}
    return {
        "options": {name: str(value) if isinstance(value, Path) else value for name, value in facts.items()},
        "atoms": len(atoms),
        "steps": options.num_steps,
        "seconds": seconds,
        "steps_per_second": options.num_steps / seconds,
        "neighbor_lists": atoms.calc.neighbors.builds,
        **results(log, options.ensemble, len(atoms)),
        "versions": versions(),
    }


def read_structure(options: DynamicsOptions) -> Atoms:
    """The structure to start from, without a calculator."""
    if not options.structure.is_file():
        raise FileNotFoundError(f"structure={str(options.structure)!r}: no such file")
    try:
        read = ase.io.read(str(options.structure), options.frame, do_not_split_by_at_sign=True)
        atoms = cast(Atoms, read)  # a slice of frames would give a list
    except Exception as error:  # each of ASE's readers has its own
        raise ValueError(
            f"structure={str(options.structure)!r}: ASE cannot read frame {options.frame} "
            f"({type(error).__name__}: {error}); name another file or --frame"
        ) from error
    if len(atoms) < 2:
        raise ValueError(f"structure={str(options.structure)!r} has {len(atoms)} atoms: expected two or more")
    if options.velocities == "file" and not atoms.has("momenta"):
        raise ValueError(
            f"velocities='file', but structure={str(options.structure)!r} has none: take --velocities maxwell"
        )
    atoms.calc = None
    return atoms


def set_up(atoms: Atoms, options: DynamicsOptions) -> MolecularDynamics:
    """Gives ``atoms`` their momenta and returns what moves them."""
    rng = np.random.default_rng(options.seed)
    if options.velocities == "maxwell":
        draw_momenta(atoms, options.temperature, rng)
    if options.ensemble == "nve":
        return verlet(atoms, options.timestep)
    return langevin(atoms, options.timestep, options.temperature, options.friction, rng)


@contextmanager
def trajectory_writer(folder: Path, dynamics: MolecularDynamics, record: RecordOptions) -> Iterator:
    """A function that adds the structure of this moment to the trajectory."""
    if record.trajectory == "traj":
        with Trajectory(folder / "trajectory.traj", "w") as file:
            yield lambda: file.write(snapshot(dynamics.atoms, dynamics.get_time() / PICOSECOND))
    else:
        with open(folder / "trajectory.xyz", "w") as file:
            yield lambda: ase.io.write(
                file, snapshot(dynamics.atoms, dynamics.get_time() / PICOSECOND), format="extxyz"
            )


def progress(steps: int) -> tqdm:
    return tqdm(total=steps, unit=" steps", delay=2, leave=False, disable=None)  # None: only in a terminal


def results(log: EnergyLog, ensemble: str, num_atoms: int) -> dict[str, float]:
    """Temperature over the second half of the run and, without a thermostat, the energy drift over all of it."""
    temperature = log.column("temperature_K")[len(log.rows) // 2 :]
    found = {"temperature_mean_K": float(temperature.mean()), "temperature_std_K": float(temperature.std())}
    if ensemble == "nve":
        found |= energy_drift(log.column("time_ps"), log.column("total_energy_eV"), num_atoms)
    return found


def describe(summary: dict, folder: Path) -> str:
    """The results for a person."""
    speed = f"{summary['seconds']:.1f} s, {summary['steps_per_second']:.1f} a second"
    mean, deviation = summary["temperature_mean_K"], summary["temperature_std_K"]
    lines = [
        f"{summary['steps']} steps in {speed}; {summary['neighbor_lists']} neighbour lists",
        f"temperature of the second half {mean:.1f} K, standard deviation {deviation:.1f} K",
    ]
    if "energy_drift_meV_per_atom_per_ps" in summary:
        drift, error = (summary[f"energy_drift_{name}meV_per_atom_per_ps"] for name in ("", "error_"))
        lines.append(f"energy drift {drift:.4g} +- {error:.2g} meV/atom/ps")
        lines.append(f"energy fluctuation {summary['energy_fluctuation_meV_per_atom']:.3g} meV/atom")
    return "\n".join([*lines, f"results in {folder}"])
