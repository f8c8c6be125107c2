import csv
from dataclasses import replace

import pytest

from train.logs import CSVLog, count_from_one
from train.plots import read_log
from train.run import train

pytestmark = pytest.mark.usefixtures("no_plots")


def epochs(folder) -> list[str]:
    with open(folder / "metrics.csv", newline="") as file:
        return [row["epoch"] for row in csv.DictReader(file)]


def test_epochs_count_from_one(tmp_path):
    log = CSVLog(tmp_path, name="", version="")
    log.log_metrics({"epoch": 0, "val/loss": 0.5}, 9)
    log.save()
    assert epochs(tmp_path) == ["1"]


def test_epochs_of_a_resumed_run_go_on(tmp_path, splits, model, fit, run):
    train(splits, tmp_path, model, replace(fit, max_epochs=2), run)
    train(splits, tmp_path, model, fit, replace(run, resume=tmp_path))
    assert epochs(tmp_path) == ["1", "2", "3"]
    assert read_log(tmp_path / "metrics.csv", "val/loss")[0].tolist() == [1, 2, 3]


def test_an_older_log_is_counted_anew_once(tmp_path):
    log = tmp_path / "metrics.csv"
    log.write_text("epoch,step,lr\n0,9,0.5\n1,19,\n")
    for _ in range(2):
        count_from_one(log)
        assert log.read_text().split() == ["epoch,step,lr", "1,9,0.5", "2,19,"]
