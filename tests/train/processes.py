"""Trainings in processes of their own, tiny ones on the embedded frames."""

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.forked import ROOT, Forked

TINY = (
    "--train_size 20 --val_size 8 --test_size 8 --batch_size 4 --cutoff 3 --channels 4 --lmax 1 --layers 1 "
    "--products false --device cpu --threads 1"
)
ENDLESS = f"{TINY} --max_epochs 100000"


def command(arguments: str) -> subprocess.Popen:
    """``python -m train ...``, started as by a shell: for trainings that start processes themselves."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    pipe = subprocess.PIPE
    line = [sys.executable, "-m", "train", *arguments.split()]
    return subprocess.Popen(line, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


def forked(arguments: str, most_bytes: int | None = None) -> Forked:
    """``python -m train ...``, started without its imports."""
    return Forked(["-m", "train", *arguments.split()], most_bytes=most_bytes)


def wait_for(path: Path, process: subprocess.Popen | Forked, size: int = 0) -> None:
    """Until the file is there, and has this many bytes."""
    until = time.monotonic() + 120
    while not path.exists() or path.stat().st_size < size:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.05)
