import fcntl
import os
import signal
import subprocess
import sys

import pytest
from lightning.pytorch.utilities import rank_zero_only

from train.lock import LOCK, alone_in

from .processes import ENDLESS, ROOT, command, finished, wait_for

HOLDER = """
import sys, time
from pathlib import Path
from train.lock import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that writes in the folder."""
    arguments = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_and_the_first_one_named(tmp_path, holder):
    with (
        pytest.raises(ValueError, match=rf"process {holder.pid} on .* writes there; wait for its end"),
        alone_in(tmp_path),
    ):
        pass


def test_a_killed_process_leaves_no_lock(tmp_path, holder):
    holder.kill()
    holder.wait()
    with alone_in(tmp_path):
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")


def test_nothing_is_left_behind(tmp_path):
    with alone_in(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_other_processes_of_a_training_are_not_asked(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    with alone_in(tmp_path):
        pass


def test_where_there_are_no_locks_it_says_so(tmp_path, monkeypatch):
    def no_locks(file, operation):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    with pytest.warns(UserWarning, match="no locks here"), alone_in(tmp_path):
        pass


@pytest.mark.slow
def test_a_live_run_does_not_go_on_twice(tmp_path):
    process = command(f"md17 --run_dir {tmp_path / 'run'} {ENDLESS}")
    wait_for(tmp_path / "run" / "last.ckpt", process)
    config = (tmp_path / "run" / "config.yaml").read_text()
    code, mistakes = finished(f"md17 --resume {tmp_path / 'run'} --max_epochs 200000")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert code == 1
    assert f"process {process.pid} on" in mistakes
    assert "Traceback" not in mistakes
    assert (tmp_path / "run" / "config.yaml").read_text() == config
