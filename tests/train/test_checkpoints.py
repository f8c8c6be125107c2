import csv

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO

from train.checkpoints import AtomicCheckpointIO, continue_log


def test_a_checkpoint_that_is_not_written_whole_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    writer = AtomicCheckpointIO()
    writer.save_checkpoint({"step": 1}, path)

    def fails_half_way(self, checkpoint, path, storage_options=None):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(TorchCheckpointIO, "save_checkpoint", fails_half_way)
    with pytest.raises(OSError, match="disk full"):
        writer.save_checkpoint({"step": 2}, path)
    assert torch.load(path) == {"step": 1}


def test_log_goes_on_after_the_checkpoint(tmp_path):
    """Rows of steps that are done again are dropped, those before stay as they are."""
    first = CSVLogger(tmp_path, name="", version="")
    for epoch, step in ((0, 10), (1, 20), (2, 30)):
        first.log_metrics({"epoch": epoch, "val/loss": 0.1 + epoch}, step)
    first.save()
    second = CSVLogger(tmp_path, name="", version="")
    continue_log(second, step=20)
    second.log_metrics({"epoch": 2, "val/loss": 7.0}, 30)
    second.save()
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = [(row["epoch"], row["step"], row["val/loss"]) for row in csv.DictReader(file)]
    assert rows == [("0", "10", "0.1"), ("1", "20", "1.1"), ("2", "30", "7.0")]
