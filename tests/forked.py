"""Programs in processes of their own, which are forked from one that has imported PyTorch, Lightning and the training
command: the imports take longer than most of the programs."""

import multiprocessing
import os
import resource
import runpy
import signal
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]

_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(["train.cli", __name__])


class Forked:
    """A program, started; its methods are those of Popen.

    Args:
        arguments: what one would write after ``python``: ``-m`` and a module, or a file, and the program's arguments.
        folder: where it runs.
        most_bytes: that a file which it writes may have; None for any number.
    """

    def __init__(self, arguments: Sequence[str], folder: Path = ROOT, most_bytes: int | None = None):
        self._written = Path(tempfile.mkdtemp())
        given = [*map(str, arguments)], folder, self._written, most_bytes
        self._process = _FORKED.Process(target=_run, args=given, daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """What it wrote to stdout and to stderr, when it has ended."""
        self._process.join(timeout)
        if self.returncode is None:
            self.send_signal(signal.SIGKILL)
        assert self.returncode is not None, f"no end after {timeout} seconds"
        printed, mistakes = ((self._written / name).read_text() for name in ("stdout", "stderr"))
        return printed, mistakes


def _run(arguments: list[str], folder: Path, written: Path, most_bytes: int | None) -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(written / name, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    warnings.simplefilter("ignore")
    if most_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")
