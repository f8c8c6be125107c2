from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import Timer

from train import progress
from train.progress import ProgressLines, clock


@pytest.fixture
def trainer():
    """In the third of ten epochs, the second of this session."""
    metrics = {"train/loss": torch.tensor(0.5)}
    return SimpleNamespace(current_epoch=1, max_epochs=10, progress_bar_metrics=metrics, callbacks=[Timer()])


@pytest.fixture
def lines(trainer, monkeypatch):
    now = iter([100.0, 130.0, 130.0, 130.0, 130.0, 130.0])
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(now)))
    monkeypatch.setattr(Timer, "time_elapsed", lambda timer, stage=None: 75.0)
    lines = ProgressLines()
    lines.on_train_start(trainer, None)
    trainer.current_epoch = 2
    return lines


def test_a_line_says_how_long_it_took_and_takes(trainer, lines, capsys):
    """Two epochs in 30 seconds leave 105 seconds for seven."""
    lines.on_train_epoch_end(trainer, None)
    assert capsys.readouterr().out == "epoch 3/10  loss 0.5  0:01:15 elapsed, 0:01:45 left\n"


def test_a_time_limit_ends_it_earlier(trainer, lines, capsys):
    trainer.callbacks = [Timer("00:00:01:30")]
    lines.on_train_epoch_end(trainer, None)
    assert capsys.readouterr().out.endswith("0:01:15 elapsed, 0:00:15 left\n")


def test_days_are_counted():
    assert clock(100_000.4) == "1 day, 3:46:40"
