"""Trainings in processes of their own, tiny ones on the embedded frames."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
TINY = (
    "--train_size 20 --val_size 8 --test_size 8 --batch_size 4 --cutoff 3 --channels 4 --lmax 1 --layers 1 "
    "--products false --device cpu --threads 1"
)
ENDLESS = f"{TINY} --max_epochs 100000"


def command(arguments: str, **options) -> subprocess.Popen:
    """``python -m train ...``, started; ``options`` are those of Popen."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    pipe = subprocess.PIPE
    line = [sys.executable, "-m", "train", *arguments.split()]
    return subprocess.Popen(line, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True, **options)


def finished(arguments: str, **options) -> tuple[int, str]:
    """The exit code of the command, and what it wrote to stderr."""
    process = command(arguments, **options)
    _, mistakes = process.communicate(timeout=120)
    return process.returncode, mistakes


def wait_for(path: Path, process: subprocess.Popen) -> None:
    """Until the file is there."""
    until = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.1)
