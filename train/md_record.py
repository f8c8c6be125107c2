"""What a molecular dynamics writes while it runs: log and trajectory, each line and each structure as soon as it is
there."""

import os
from io import TextIOWrapper
from pathlib import Path
from typing import Literal

import ase.io
from ase.io.trajectory import Trajectory

from train.dynamics import PICOSECOND, Dynamics, EnergyLog, read_rows, row_type, snapshot
from train.outputs import written_whole

LOG = "log.csv"
TRAJECTORIES = {"extxyz": "trajectory.xyz", "traj": "trajectory.traj"}


class Record:
    """``log.csv`` and the trajectory of one run; of one that goes on, what was written before stays.

    Args:
        folder: an existing folder.
        dynamics: what is recorded.
        num_degrees: see :class:`train.dynamics.EnergyLog`.
        trajectory: the format.
        written: what of the two files is kept, see :meth:`written`; None for a new run.
    """

    def __init__(
        self,
        folder: Path,
        dynamics: Dynamics,
        num_degrees: int,
        trajectory: Literal["extxyz", "traj"],
        written: tuple[int, int] | None = None,
    ):
        self.folder, self.dynamics, self._structures = folder, dynamics, 0
        place, rows = folder / TRAJECTORIES[trajectory], []
        if written is not None:
            os.truncate(folder / LOG, written[0])
            rows = read_rows(folder / LOG, row_type(dynamics.atoms))
            self._structures = written[1]
            keep(place, trajectory, written[1])
        mode: Literal["w", "a"] = "w" if written is None else "a"
        # Closed by __exit__.
        self._log_file = open(folder / LOG, mode, newline="")  # noqa: SIM115
        self._trajectory = Trajectory(place, mode) if trajectory == "traj" else open(place, mode)  # noqa: SIM115
        self.log = EnergyLog(self._log_file, dynamics, num_degrees, rows)

    def write_structure(self) -> None:
        atoms = snapshot(self.dynamics.atoms, self.dynamics.get_time() / PICOSECOND)
        if isinstance(self._trajectory, TextIOWrapper):
            ase.io.write(self._trajectory, atoms, format="extxyz")
            self._trajectory.flush()
            self._structures = os.fstat(self._trajectory.fileno()).st_size
        else:
            self._trajectory.write(atoms)
            self._structures += 1

    def written(self) -> tuple[int, int]:
        """Bytes of the log; bytes of an extended XYZ, or structures of a binary trajectory."""
        return os.fstat(self._log_file.fileno()).st_size, self._structures

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, *_) -> None:
        self._log_file.close()
        self._trajectory.close()


def keep(path: Path, trajectory: Literal["extxyz", "traj"], written: int) -> None:
    """Takes from a trajectory what was added after ``written``: steps from there on are done again."""
    if trajectory == "extxyz":
        os.truncate(path, written)
        return
    with Trajectory(path) as there:
        if len(there) == written:
            return
        with written_whole(path) as unfinished, Trajectory(unfinished, "w") as shortened:
            for number in range(written):
                shortened.write(there[number])
