"""What a molecular dynamics needs to go on after an interruption, and which options may then be others."""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import yaml
from ase import Atoms
from ase.md.md import MolecularDynamics

from pyg_cgconv.potential import VerletList
from train.outputs import written_whole
from train.trained import CONFIG, written_options

STATE = "state.npz"
SECONDS_BETWEEN = 5.0  # two states: what is lost at most if a run is killed. A state takes a millisecond to write.
# What a run may be given anew when it goes on.
CHANGEABLE = ("steps", "time", "resume", "run_dir", "device", "threads")


class StateWriter:
    """Writes ``state.npz`` of a run when it is called, the first time at once and then every few seconds.

    Args:
        folder: of the run.
        dynamics: what moves.
        lists: the neighbour lists of its calculator: sums are rounded in their order.
        generators: of random numbers.
        sizes: gives what has been written of each record so far, see :meth:`train.md_record.Record.written`.
    """

    def __init__(
        self,
        folder: Path,
        dynamics: MolecularDynamics,
        lists: Sequence[VerletList],
        generators: Sequence[np.random.Generator],
        sizes: Callable[[], Sequence[tuple[int, int]]],
    ):
        self.path, self.dynamics, self.lists, self.generators = folder / STATE, dynamics, lists, generators
        self._sizes, self._written, self._start = sizes, -np.inf, time.perf_counter()
        self.seconds_before = 0.0  # of earlier sessions

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self._start

    def __call__(self) -> None:
        if time.monotonic() - self._written >= SECONDS_BETWEEN:
            self.write()

    def write(self) -> None:
        atoms = self.dynamics.atoms
        made_for = [neighbors.made_for or atoms for neighbors in self.lists]
        state = {
            "step": self.dynamics.nsteps,
            "seconds": self.seconds,
            "numbers": atoms.numbers,
            "positions": atoms.positions,
            "momenta": atoms.get_momenta(),
            "cell": atoms.cell.array,
            "list_positions": np.stack([one.positions for one in made_for]),
            "list_cells": np.stack([one.cell.array for one in made_for]),
            "list_builds": [neighbors.builds for neighbors in self.lists],
            "random": json.dumps([generator.bit_generator.state for generator in self.generators]),
            "written": self._sizes(),
            **getattr(self.dynamics, "cell_state", {}),
        }
        with written_whole(self.path) as unfinished, open(unfinished, "wb") as file:
            np.savez(file, **state)
            file.flush()
            os.fsync(file.fileno())
        self._written = time.monotonic()


def read_state(folder: Path) -> dict[str, np.ndarray]:
    """The state of the run in ``folder``; nothing in the file is executed.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is cut short, or of something else.
    """
    path = folder / STATE
    if not path.is_file():
        raise FileNotFoundError(f"resume={str(folder)!r}: there is no {STATE}, so no dynamics that can go on")
    try:
        with np.load(path, allow_pickle=False) as file:
            state = dict(file)
        if not {"step", "positions", "momenta", "written", "random"} <= state.keys():
            raise ValueError("no state of a dynamics")
    except (ValueError, OSError, EOFError, KeyError, BadZipFile) as error:
        raise ValueError(f"resume={str(path)!r} cannot be read ({error}): begin a new run") from error
    return state


def restore_atoms(atoms: Atoms, state: dict[str, np.ndarray]) -> None:
    """Puts the atoms where they were.

    Raises:
        ValueError: they are others.
    """
    if not np.array_equal(atoms.numbers, state["numbers"]):
        raise ValueError("resume: the structure file holds other atoms than the run began with; restore it")
    atoms.set_cell(state["cell"])
    atoms.arrays["positions"][:] = state["positions"]
    atoms.set_array("momenta", state["momenta"].copy())


def restore_lists(lists: Sequence[VerletList], alone: Sequence[Atoms], state: dict[str, np.ndarray]) -> None:
    """Makes the neighbour lists again that the run had, so that its sums are rounded as they were.

    Args:
        alone: the structure that each list is of.
    """
    for number, (neighbors, atoms) in enumerate(zip(lists, alone, strict=True)):
        before = atoms.copy()
        before.set_cell(state["list_cells"][number])
        before.arrays["positions"][:] = state["list_positions"][number]
        neighbors.made_for = None  # a list of the structure that the run began with might reach, and have another order
        neighbors(before)
        neighbors.builds = int(state["list_builds"][number])


def restore_random(generators: Sequence[np.random.Generator], state: dict[str, np.ndarray]) -> None:
    for generator, known in zip(generators, json.loads(str(state["random"])), strict=True):
        generator.bit_generator.state = known


def write_config(folder: Path, options: dict[str, Any]) -> None:
    """``config.yaml``: the options by name."""
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    with written_whole(folder / CONFIG) as unfinished:
        unfinished.write_text(yaml.safe_dump(plain, sort_keys=False))


def with_resumed_config(arguments: Sequence[str]) -> list[str]:
    """The arguments of ``md`` with the model and the options of the run that they go on with.

    Raises:
        FileNotFoundError: the folder holds no dynamics.
        ValueError: a model, a structure or a configuration is given beside it.
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--resume", "--config", "--structure"):
        early.add_argument(name, type=Path)
    given, others = early.parse_known_args(arguments)
    if given.resume is None:
        return list(arguments)
    config = given.resume / CONFIG
    for name in ("config", "structure"):
        if getattr(given, name) is not None:
            raise ValueError(f"{name}={str(getattr(given, name))!r}: a resumed run has its own; leave this option out")
    if not config.is_file():
        raise FileNotFoundError(f"resume={str(given.resume)!r}: there is no {CONFIG}, so no dynamics that can go on")
    model = written_options(config).get("model")
    if model is None:
        raise ValueError(f"resume={str(given.resume)!r}: its {CONFIG} is not that of a dynamics")
    if others and not others[0].startswith("-"):
        raise ValueError(f"model={others[0]!r}: a resumed run has its own, {model}; leave MODEL out")
    later = list(arguments)
    ended = {"--steps", "--time"} & {word.partition("=")[0] for word in later}
    if ended:  # another end takes the place of the one that was planned, however that was given
        later += [f"--{name}=null" for name in ("steps", "time") if f"--{name}" not in ended]
    return [str(model), "--config", str(config), *later]


def check_resumed(folder: Path, now: dict[str, Any], done: int, end: int) -> None:
    """Raises ValueError where an option that shapes the dynamics is another one than before, or nothing is left to do.

    Args:
        folder: of the run.
        now: options by name.
        done: steps that the state has behind it.
        end: steps that are asked for.
    """
    before = written_options(folder / CONFIG)
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in now.items()}
    changed = [
        f"{name}={value!r} (it was {before[name]!r})"
        for name, value in plain.items()
        if name in before and name not in CHANGEABLE and value != before[name]
    ]
    if changed:
        raise ValueError(
            f"{', '.join(changed)}: a resumed run keeps its options; only {', '.join(CHANGEABLE)} may change"
        )
    if end < done:
        raise ValueError(
            f"steps: the end, {end} steps, lies before what the run has done, {done}: give more --steps or --time"
        )
