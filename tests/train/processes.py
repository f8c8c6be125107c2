"""Trainings in processes of their own, tiny ones on the embedded frames.

They are forked from a process that has imported the command, because its imports take longer than all else. What
starts processes itself, and one test of the shell, use :func:`command`.
"""

import multiprocessing
import os
import resource
import runpy
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[2]
TINY = (
    "--train_size 20 --val_size 8 --test_size 8 --batch_size 4 --cutoff 3 --channels 4 --lmax 1 --layers 1 "
    "--products false --device cpu --threads 1"
)
ENDLESS = f"{TINY} --max_epochs 100000"

_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(["train.cli", __name__])


def command(arguments: str) -> subprocess.Popen:
    """``python -m train ...``, started by a shell's means."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    pipe = subprocess.PIPE
    line = [sys.executable, "-m", "train", *arguments.split()]
    return subprocess.Popen(line, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


class Forked:
    """``python -m train ...``, started in a forked process, with what :func:`command` gives of Popen.

    Args:
        most_bytes: that a file which the process writes may have; None for any number.
    """

    def __init__(self, arguments: str, most_bytes: int | None = None):
        file, self._mistakes = tempfile.mkstemp()
        os.close(file)
        self._process = _FORKED.Process(target=_train, args=(arguments, self._mistakes, most_bytes), daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def communicate(self, timeout: float = 60) -> tuple[None, str]:
        self._process.join(timeout)
        assert self.poll() is not None, f"still running after {timeout} s: {self._said()}"
        return None, self._said()

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def _said(self) -> str:
        return Path(self._mistakes).read_text()


def _train(arguments: str, mistakes: str, most_bytes: int | None) -> None:
    sys.argv = ["train", *arguments.split()]
    for number, path in ((1, os.devnull), (2, mistakes)):
        file = os.open(path, os.O_WRONLY)
        os.dup2(file, number)
        os.close(file)
    os.chdir(ROOT)
    warnings.simplefilter("ignore")
    if most_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    runpy.run_module("train", run_name="__main__", alter_sys=True)


def wait_for(path: Path, process: subprocess.Popen | Forked, size: int = 0) -> None:
    """Until the file is there, and has this many bytes."""
    until = time.monotonic() + 120
    while not path.exists() or path.stat().st_size < size:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.05)
