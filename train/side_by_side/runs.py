"""Trainings in processes of their own, and what came of them."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np

from train.metrics import MEV_PER_EV
from train.side_by_side.codes import ROOT, Code
from train.side_by_side.frames import FrameFiles
from train.side_by_side.options import ComparisonOptions

# Of the largest number of parameters over the smallest.
LARGEST_RATIO = 1.2
# Of the time that was asked for; a machine with other users varies by more, so that no more than some are tried.
SAME_TIME = 0.1
ATTEMPTS = 3
SHOWN_LINES = 15


class RunFailed(RuntimeError):
    """A process ended with an error."""


@dataclass(frozen=True)
class Job:
    """One training: a code, a seed, and the folder in which each of its trainings has one."""

    code: Code
    seed: int
    folder: Path

    @property
    def title(self) -> str:
        return f"{self.code.name}, seed {self.seed}"


def start(code: Code, words: Sequence[str], log: Path, threads: int) -> str:
    """Runs a process of ``code`` to its end and returns what it printed, which ``log`` keeps.

    Raises:
        RunFailed: it ended with an error.
    """
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    environment["CUDA_VISIBLE_DEVICES"] = ""
    if not code.checkout:
        environment["PYTHONSAFEPATH"] = "1"  # the checkout has packages of names that others may look for
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [*code.python, *words]
    with open(log, "w") as file:
        try:
            ended = subprocess.run(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT).returncode
        except OSError as error:
            raise RunFailed(f"{code.python[0]}: {error.strerror}") from error
    text = log.read_text()
    if ended:
        raise RunFailed("\n".join([f"exit code {ended}, see {log}", *text.splitlines()[-SHOWN_LINES:]]))
    return text


def what_is_missing(code: Code, log: Path) -> str | None:
    """Why ``code`` cannot be trained in its environment; None if it can."""
    try:
        start(code, ["-c", f"import ase.io, {code.needed}"], log, threads=1)
    except RunFailed as error:
        return str(error).splitlines()[-1]
    return None


def finished(job: Job, folder: Path, frames: Sequence[Path] = ()) -> dict:
    """What ``finished.py`` says of the training in ``folder``."""
    script = ["-m", "train.side_by_side.finished"] if job.code.checkout else [f"{Path(__file__).parent}/finished.py"]
    words = [*script, job.code.name, str(job.code.model(folder)), *map(str, frames)]
    return json.loads(start(job.code, words, folder.parent / f"{folder.name}-finished.txt", 1).splitlines()[-1])


def train(job: Job, files: FrameFiles, options: ComparisonOptions, name: str, end: Sequence[str]) -> tuple[Path, float]:
    """The folder of the training ``name`` of ``job``, and the time of its process, s."""
    folder = job.folder / name
    begun = time.monotonic()
    words = [*job.code.command(files, folder, job.seed, options.threads), *end, *job.code.further]
    start(job.code, words, job.folder / f"{name}.txt", options.threads)
    return folder, time.monotonic() - begun


def trial(job: Job, files: FrameFiles, options: ComparisonOptions) -> dict:
    """A training of few epochs: number of parameters, time of an epoch, kernels compiled."""
    folder, _ = train(job, files, options, "trial", job.code.trial_end())
    return finished(job, folder)


def result(job: Job, files: FrameFiles, options: ComparisonOptions, tried: dict) -> dict:
    """A row of the results: a training of the given time, and its errors on the test frames.

    A code without a limit of time is trained anew, with the epochs that the last training asks for, until its time is
    right.
    """
    for attempt in range(1, ATTEMPTS + 1):
        end = job.code.end(options.seconds, tried)
        folder, process_seconds = train(job, files, options, f"run-{attempt}", end)
        tried = finished(job, folder)
        if job.code.has_time_limit or abs(tried["seconds"] / options.seconds - 1) < SAME_TIME:
            break
    found = finished(job, folder, [files.test])
    errors = mean_errors(files.test, found.pop("energy"), found.pop("forces"))
    shown = " ".join([*job.code.command(files, folder, job.seed, options.threads), *end, *job.code.further])
    about = {"code": job.code.name, "seed": job.seed} | found
    return about | {"process_seconds": process_seconds, "test": errors, "command": shown}


def mean_errors(frames: Path, energy: Sequence[float], forces: Sequence) -> dict[str, float]:
    """Mean absolute errors on ``frames``, which have references; meV and meV/Angstrom."""
    structures = ase.io.read(frames, ":")
    energies = np.array([atoms.get_potential_energy() for atoms in structures])
    reference = np.concatenate([atoms.get_forces() for atoms in structures])
    predicted = np.concatenate([np.array(of_frame) for of_frame in forces])
    return {
        "energy_mae_meV": MEV_PER_EV * float(np.abs(np.array(energy) - energies).mean()),
        "forces_mae_meV_per_A": MEV_PER_EV * float(np.abs(predicted - reference).mean()),
    }


def check_parameters(parameters: dict[str, int]) -> None:
    """Raises ValueError where the largest of the numbers of parameters is not within 20 % of the smallest."""
    if parameters and max(parameters.values()) > LARGEST_RATIO * min(parameters.values()):
        counts = ", ".join(f"{code} {count:,}" for code, count in parameters.items())
        raise ValueError(
            f"numbers of parameters: {counts}; expected that they agree within 20 %: change the sizes by "
            "--pyg_cgconv_options, --mace_options or --nequip_options"
        )


def in_parallel(count: int, work: Callable[[Job], dict], jobs: Sequence[Job]) -> tuple[dict[Job, dict], dict[Job, str]]:
    """What ``work`` returns of each of ``jobs``, ``count`` at a time, and why others failed."""
    done: dict[Job, dict] = {}
    failed: dict[Job, str] = {}

    def tried(job: Job) -> None:
        try:
            done[job] = work(job)
        except RunFailed as error:
            failed[job] = str(error)
            print(f"{job.title}: {error}", flush=True)

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(tried, jobs))
    return {job: done[job] for job in jobs if job in done}, failed
