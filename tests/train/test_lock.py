import fcntl
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from lightning.pytorch.utilities import rank_zero_only

from train.lock import LOCK, alone_in

from .processes import ENDLESS, forked, wait_for


def hold(folder: Path, held) -> None:
    with alone_in(folder):
        held.set()
        time.sleep(60)


@contextmanager
def holder(folder: Path) -> Iterator[BaseProcess]:
    """A process that writes in the folder."""
    fork = multiprocessing.get_context("fork")
    held = fork.Event()
    process = fork.Process(target=hold, args=(folder, held))
    process.start()
    try:
        assert held.wait(60)
        yield process
    finally:
        process.kill()
        process.join()


def test_a_second_process_is_refused_and_others_of_the_same_training_are_not_asked(tmp_path, monkeypatch):
    with holder(tmp_path) as process:
        refused = pytest.raises(ValueError, match=rf"process {process.pid} on .* writes there; wait for its end")
        with refused, alone_in(tmp_path):
            pass
        monkeypatch.setattr(rank_zero_only, "rank", 1)
        with alone_in(tmp_path):
            pass


def test_a_killed_process_leaves_no_lock(tmp_path):
    with holder(tmp_path) as process:
        process.kill()
        process.join()
        with alone_in(tmp_path):
            assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")


def test_nothing_is_left_behind(tmp_path):
    with alone_in(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_where_there_are_no_locks_it_says_so(tmp_path, monkeypatch):
    def no_locks(file, operation):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    with pytest.warns(UserWarning, match="no locks here"), alone_in(tmp_path):
        pass


@pytest.mark.slow
def test_a_live_run_does_not_go_on_twice(tmp_path):
    process = forked(f"md17 --run_dir {tmp_path / 'run'} {ENDLESS}")
    wait_for(tmp_path / "run" / "last.ckpt", process)
    process.send_signal(signal.SIGSTOP)  # it keeps its lock, and leaves the cores to the other one
    config = (tmp_path / "run" / "config.yaml").read_text()
    second = forked(f"md17 --resume {tmp_path / 'run'} --max_epochs 200000")
    _, mistakes = second.communicate()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert second.returncode == 1
    assert f"process {process.pid} on" in mistakes
    assert "Traceback" not in mistakes
    assert (tmp_path / "run" / "config.yaml").read_text() == config
