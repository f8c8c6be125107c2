"""A disk that is full while a training writes: files may not grow in processes of their own."""

import pytest

from .processes import TINY, forked


@pytest.mark.slow
def test_it_is_a_sentence(tmp_path):
    folder = tmp_path / "run"
    # best.ckpt is smaller, last.ckpt larger.
    process = forked(f"md17 --run_dir {folder} {TINY} --max_epochs 2", most_bytes=100_000)
    _, mistakes = process.communicate()
    assert process.returncode == 1
    assert f"error: cannot write to '{folder}': File too large. What was whole there before still is" in mistakes
    assert "Traceback" not in mistakes
    written = {"best.ckpt", "config.yaml", "hparams.yaml", "log.txt", "metrics.csv"}
    assert {path.name for path in folder.iterdir()} == written
