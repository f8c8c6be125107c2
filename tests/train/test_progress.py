from itertools import chain, repeat
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import Timer

from train import progress
from train.progress import ProgressLines, clock
from train.run_log import written_to


@pytest.fixture
def trainer():
    """In the third of ten epochs, the second of this session."""
    metrics = {"train/loss": torch.tensor(0.5), "val/energy_mae_meV": torch.tensor(12.0)}
    return SimpleNamespace(current_epoch=1, max_epochs=10, progress_bar_metrics=metrics, callbacks=[Timer()])


@pytest.fixture
def lines(trainer, monkeypatch):
    now = chain([100.0], repeat(130.0))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(now)))
    monkeypatch.setattr(Timer, "time_elapsed", lambda timer, stage=None: 75.0)
    lines = ProgressLines(on_screen=True)
    lines.on_train_start(trainer, None)
    trainer.current_epoch = 2
    return lines


LINE = "epoch 3/10  loss 0.5  val energy meV 12  0:01:15 elapsed, 0:01:45 left\n"


def test_a_line_says_how_long_it_took_and_takes(trainer, lines, capsys):
    """Two epochs in 30 seconds leave 105 seconds for seven."""
    lines.on_train_epoch_end(trainer, None)
    assert capsys.readouterr().out == LINE


def test_a_time_limit_ends_it_earlier(trainer, lines, capsys):
    trainer.callbacks = [Timer("00:00:01:30")]
    lines.on_train_epoch_end(trainer, None)
    assert capsys.readouterr().out.endswith("0:01:15 elapsed, 0:00:15 left\n")


def test_the_file_has_each_line_and_the_screen_one_in_ten_seconds(tmp_path, trainer, lines, capsys):
    with written_to(tmp_path):
        for _ in range(3):
            lines.on_train_epoch_end(trainer, None)
    assert capsys.readouterr().out == LINE
    assert (tmp_path / "log.txt").read_text().count(LINE) == 3


def test_nothing_is_said_of_an_epoch_without_numbers(tmp_path, trainer, lines, capsys):
    """A run that goes on after a validation ends that epoch once more."""
    trainer.progress_bar_metrics = {}
    lines.on_train_epoch_end(trainer, None)
    assert capsys.readouterr().out == ""


def test_days_are_counted():
    assert clock(100_000.4) == "1 day, 3:46:40"
