"""A disk that is full while a training writes: files may not grow in processes of their own."""

import resource

import pytest

from .processes import TINY, finished

pytestmark = pytest.mark.slow


def test_it_is_a_sentence(tmp_path):
    def no_large_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # best.ckpt is smaller, last.ckpt larger

    folder = tmp_path / "run"
    code, mistakes = finished(f"md17 --run_dir {folder} {TINY} --max_epochs 2", preexec_fn=no_large_files)
    assert code == 1
    assert f"error: cannot write to '{folder}': File too large. What was whole there before still is" in mistakes
    assert "Traceback" not in mistakes
    written = {"best.ckpt", "config.yaml", "hparams.yaml", "log.txt", "metrics.csv"}
    assert {path.name for path in folder.iterdir()} == written
