"""What can be chosen in a molecular dynamics."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from train.options import require_at_least_zero, require_positive

FEMTOSECONDS_PER_PICOSECOND = 1000.0


@dataclass(frozen=True)
class DynamicsOptions:
    """Dynamics: what moves, how and how long.

    Args:
        structure: file with the structure to start from, of any format that ASE reads. Atoms that it fixes stay fixed.
        frame: which structure of the file, counted from 0; -1 is the last.
        ensemble: nve keeps the energy; nvt the temperature; npt temperature and pressure, of crystals.
        temperature: K. Of the momenta at the start and of the thermostat. Without a thermostat, a structure at rest in
            its minimum ends at about half of it.
        velocities: maxwell draws them, without motion of the centre of mass or rotation; file takes those of the
            structure, such as the last one of a trajectory.
        timestep: fs.
        steps: how many (default: 1000, or as time says).
        time: ps, instead of steps.
        friction: of the thermostat, 1/ps.
        pressure: of the barostat, GPa.
        barostat: isotropic changes the volume of the cell and keeps its shape; anisotropic changes its lengths and
            angles, each for itself.
        barostat_time: ps, in which the volume follows the pressure.
        replicas: how many runs from the same structure, computed together in one batch; each has a seed of its own,
            which is seed plus its number, and a folder of its own.
        seed: of the momenta, of the thermostat and of the barostat.
        skin: Angstrom by which neighbours are looked for beyond the cutoff, so that a list lasts for more steps.
    """

    structure: Path
    frame: int = -1
    ensemble: Literal["nve", "nvt", "npt"] = "nve"
    temperature: float = 300.0
    velocities: Literal["maxwell", "file"] = "maxwell"
    timestep: float = 0.5
    steps: int | None = None
    time: float | None = None
    friction: float = 10.0
    pressure: float = 0.0
    barostat: Literal["isotropic", "anisotropic"] = "isotropic"
    barostat_time: float = 1.0
    replicas: int = 1
    seed: int = 0
    skin: float = 0.5

    def __post_init__(self):
        require_positive(self, "timestep", "friction", "barostat_time", "replicas")
        require_at_least_zero(self, "temperature", "seed", "skin")
        if self.steps is not None and self.time is not None:
            raise ValueError(f"steps={self.steps} and time={self.time}: give one of them")
        if self.num_steps < 1:
            raise ValueError(
                f"steps={self.steps}, time={self.time} with timestep={self.timestep}: expected one step or more"
            )
        if self.ensemble == "npt" and self.replicas > 1:
            raise ValueError(
                f"replicas={self.replicas} with ensemble='npt': replicas have one cell; run npt one by one, or take nvt"
            )
        if self.ensemble == "npt" and self.temperature == 0:
            raise ValueError("temperature=0 with ensemble='npt': its thermostat needs a temperature above 0 K")
        if self.ensemble != "npt" and (self.pressure, self.barostat) != (0.0, "isotropic"):
            raise ValueError(
                f"pressure={self.pressure}, barostat={self.barostat!r} with ensemble={self.ensemble!r}: only npt has a "
                "barostat; take --ensemble npt, or leave these options out"
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
        resume: folder of an earlier run to go on with, to the end that was planned or to that of steps or time, counted
            from its beginning. Its options are read from its config.yaml; give no MODEL and no structure.
        log_interval: steps between two lines of log.csv.
        trajectory_interval: steps between two structures of the trajectory.
        trajectory: extended XYZ (extxyz) or ASE's own binary format (traj).
    """

    run_dir: Path | None = None
    resume: Path | None = None
    log_interval: int = 10
    trajectory_interval: int = 10
    trajectory: Literal["extxyz", "traj"] = "extxyz"

    def __post_init__(self):
        require_positive(self, "log_interval", "trajectory_interval")
