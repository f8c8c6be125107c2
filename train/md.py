"""Molecular dynamics with a trained potential, by ASE.

Constant energy (nve, velocity Verlet), constant temperature (nvt, Langevin), or constant temperature and pressure (npt,
Langevin with a barostat). The results folder gets a trajectory with momenta, energies and forces, log.csv, energy.png,
and md.json with the mean temperature. For nve the plot and md.json have the energy drift, otherwise the plot has the
temperature and that of the thermostat; of crystals it has pressure and volume. Several replicas are computed in one
batch, each with a folder of its own. --resume goes on with a run that was interrupted, or to a later end.
"""

import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import cast

import ase.io
import numpy as np
from ase import Atoms
from tqdm import tqdm

from train.dynamics import EnergyLog, degrees_of_freedom, energy_drift
from train.dynamics_plot import energy_plot
from train.lock import alone_in
from train.md_options import DynamicsOptions, RecordOptions
from train.md_record import Record
from train.md_setup import Moving, set_up
from train.md_state import StateWriter, check_resumed, read_state, write_config
from train.outputs import create_results_folder, writing_to
from train.report import versions, write_json
from train.trained import ComputeOptions, ModelFile

ROWS_FOR_A_LINE = 3  # its slope has no error with fewer
OPTIONS = (ModelFile, DynamicsOptions, RecordOptions, ComputeOptions)


def run(model: ModelFile, options: DynamicsOptions, record: RecordOptions, compute: ComputeOptions) -> dict:
    """Runs the dynamics and returns what is written to ``md.json``."""
    rows = options.num_steps // record.log_interval + 1
    if rows < ROWS_FOR_A_LINE:
        raise ValueError(
            f"log_interval={record.log_interval}: {options.num_steps} steps give {rows} lines of the log, expected "
            f"{ROWS_FOR_A_LINE} or more: choose a smaller interval or more steps"
        )
    chosen = asdict(model) | asdict(options) | asdict(record) | asdict(compute)
    state = None
    if record.resume is not None:
        state = read_state(record.resume)
        check_resumed(record.resume, chosen, int(state["step"]), options.num_steps)
    compute.use_threads()
    atoms = read_structure(options)
    potential = model.load(**compute.overrides)
    if "energy" not in (properties := potential.hyperparameters["properties"]):
        raise ValueError(
            f"model={str(model.model)!r} gives {', '.join(properties)} only, and no forces to move atoms by"
        )
    moving = set_up(atoms, potential, options, compute, state)
    formula = atoms.get_chemical_formula()
    folder = record.resume or create_results_folder(record.run_dir, "md", formula)
    with writing_to(folder), alone_in(folder):
        write_config(folder, chosen | {"resume": None, "run_dir": folder})
        try:
            logs, seconds = move(moving, options, record, folder, state)
        except (KeyboardInterrupt, SystemExit):
            print(f"stopped; go on with python -m train md --resume {folder}", file=sys.stderr, flush=True)
            raise
        summary = summarize(model, options, compute, moving, logs, seconds)
        write_json(folder / "md.json", summary)
        for log, place in zip(logs, folders(folder, options), strict=True):
            energy_plot(place / "energy.png", log, f"{formula}, {options.ensemble.upper()}", *targets(options))
    print(describe(summary, folder), flush=True)
    return summary


def folders(folder: Path, options: DynamicsOptions) -> list[Path]:
    """Of each replica: the run's own, if there is one."""
    if options.replicas == 1:
        return [folder]
    return [folder / f"replica-{number}" for number in range(options.replicas)]


def targets(options: DynamicsOptions) -> tuple[float | None, float | None]:
    """Temperature of the thermostat, K, and pressure of the barostat, GPa, where there are any."""
    return (
        None if options.ensemble == "nve" else options.temperature,
        options.pressure if options.ensemble == "npt" else None,
    )


def move(
    moving: Moving, options: DynamicsOptions, record: RecordOptions, folder: Path, state: dict[str, np.ndarray] | None
) -> tuple[list[EnergyLog], float]:
    """Does the steps; leaves logs and trajectories. Returns the logs and the seconds that all sessions took."""
    dynamics = moving.dynamics
    with ExitStack() as stack:
        records = []
        for number, (place, watched) in enumerate(zip(folders(folder, options), moving.watched, strict=True)):
            place.mkdir(exist_ok=True)
            degrees = degrees_of_freedom(watched.atoms, options.ensemble != "nve")
            written = None  # ASE calls all records at step 0
            if state is not None and state["step"] > 0:
                written = tuple(state["written"][number].tolist())
            records.append(stack.enter_context(Record(place, watched, degrees, record.trajectory, written)))
        bar = stack.enter_context(progress(options.num_steps))
        writer = StateWriter(
            folder, dynamics, moving.lists, moving.generators, lambda: [one.written() for one in records]
        )
        for one in records:
            dynamics.attach(one.log, interval=record.log_interval)
            dynamics.attach(one.write_structure, interval=record.trajectory_interval)
        dynamics.attach(lambda: bar.update(dynamics.nsteps - bar.n), interval=record.log_interval)
        dynamics.attach(writer)  # the last one: what it knows of the records has been written
        if state is not None:
            writer.seconds_before = float(state["seconds"])
        dynamics.run(options.num_steps - dynamics.nsteps)
        writer.write()
        return [one.log for one in records], writer.seconds


def summarize(
    model: ModelFile,
    options: DynamicsOptions,
    compute: ComputeOptions,
    moving: Moving,
    logs: list[EnergyLog],
    seconds: float,
) -> dict:
    """What is written to ``md.json``."""
    count = len(logs[0].dynamics.atoms)
    facts = asdict(options) | asdict(compute) | {"model": model.model, "head": model.head}
    facts |= {name: moving.potential.hyperparameters[name] for name in ("dtype", "backend")}
    each = [results(log, options.ensemble, count) for log in logs]
    summary = {
        "options": {name: str(value) if isinstance(value, Path) else value for name, value in facts.items()},
        "atoms": count,
        "steps": options.num_steps,
        "seconds": seconds,
        "steps_per_second": options.num_steps / seconds,
        "neighbor_lists": sum(neighbors.builds for neighbors in moving.lists),
        **{name: float(np.mean([found[name] for found in each])) for name in each[0]},
        "versions": versions(),
    }
    return summary | ({"replicas": each} if options.replicas > 1 else {})


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


def progress(steps: int) -> tqdm:
    return tqdm(total=steps, unit=" steps", delay=2, leave=False, disable=None)  # None: only in a terminal


def results(log: EnergyLog, ensemble: str, num_atoms: int) -> dict[str, float]:
    """Temperature, and pressure and volume of a crystal, over the second half of the run; without a thermostat, the
    energy drift over all of it."""
    half = len(log.rows) // 2
    names = {"temperature_K": "temperature_{}_K", "pressure_GPa": "pressure_{}_GPa", "volume_A3": "volume_{}_A3"}
    found: dict[str, float] = {}
    for column, name in names.items():
        if hasattr(log.rows[0], column):
            values = log.column(column)[half:]
            found |= {name.format("mean"): float(values.mean()), name.format("std"): float(values.std())}
    if ensemble == "nve":
        found |= energy_drift(log.column("time_ps"), log.column("total_energy_eV"), num_atoms)
    return found


def describe(summary: dict, folder: Path) -> str:
    """The results for a person."""
    speed = f"{summary['seconds']:.1f} s, {summary['steps_per_second']:.1f} a second"
    mean, deviation = summary["temperature_mean_K"], summary["temperature_std_K"]
    lines = [f"{summary['steps']} steps in {speed}; {summary['neighbor_lists']} neighbour lists"]
    if "replicas" in summary:
        lines.append(f"means over {len(summary['replicas'])} replicas:")
    lines.append(f"temperature of the second half {mean:.1f} K, standard deviation {deviation:.1f} K")
    if "pressure_mean_GPa" in summary:
        lines.append(
            f"pressure {summary['pressure_mean_GPa']:.3g} GPa, standard deviation {summary['pressure_std_GPa']:.3g}; "
            f"volume {summary['volume_mean_A3']:.5g} A^3, standard deviation {summary['volume_std_A3']:.3g}"
        )
    if "energy_drift_meV_per_atom_per_ps" in summary:
        drift, error = (summary[f"energy_drift_{name}meV_per_atom_per_ps"] for name in ("", "error_"))
        lines.append(f"energy drift {drift:.4g} +- {error:.2g} meV/atom/ps")
        lines.append(f"energy fluctuation {summary['energy_fluctuation_meV_per_atom']:.3g} meV/atom")
    return "\n".join([*lines, f"results in {folder}"])
