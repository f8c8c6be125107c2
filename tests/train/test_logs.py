import csv
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
from lightning.pytorch.loggers import wandb as lightning_wandb

from train import options
from train.logs import CSVLog, WandbLog, count_from_one, run_loggers
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


@pytest.mark.slow
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


# === Weights & Biases ===


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for the package: what it was begun with, what was logged and how it was ended."""
    package = ModuleType("wandb")
    package.begun, package.logged, package.ended, package.run = [], [], [], None

    def init(**arguments):
        package.begun.append(arguments)
        package.run = SimpleNamespace(log=package.logged.append, name=arguments["name"])
        return package.run

    def finish(exit_code):
        package.ended.append(exit_code)
        package.run = None

    package.init, package.finish = init, finish
    of_lightning = {
        "wandb.sdk": {},
        "wandb.sdk.lib": {"RunDisabled": type("RunDisabled", (), {})},
        "wandb.wandb_run": {"Run": type("Run", (), {})},
    }
    monkeypatch.setitem(sys.modules, "wandb", package)
    for name, content in of_lightning.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(lightning_wandb, "_WANDB_AVAILABLE", True)
    monkeypatch.setattr(options, "find_spec", lambda name: object())
    return package


def test_wandb_gets_what_was_measured_with_epochs_from_one(tmp_path, run, wandb):
    _, log = run_loggers(tmp_path, replace(run, wandb=True, wandb_project="alloys"))
    log.log_metrics({"epoch": 0, "val/loss": 0.5}, 9)
    (begun,) = wandb.begun
    assert (begun["project"], begun["name"], begun["dir"]) == ("alloys", str(tmp_path), str(tmp_path))
    assert wandb.logged == [{"epoch": 1, "val/loss": 0.5, "trainer/global_step": 9}]


@pytest.mark.parametrize(("status", "code"), [("success", 0), ("failed", 1)])
def test_the_run_of_wandb_ends_with_the_training(tmp_path, wandb, status, code):
    for folder in (tmp_path / "member-0", tmp_path / "member-1"):
        log = WandbLog(folder, "alloys", resume=False)
        log.log_metrics({"epoch": 0}, 9)
        log.finalize(status)
    assert [begun["name"] for begun in wandb.begun] == [str(tmp_path / f"member-{i}") for i in range(2)]
    assert wandb.ended == [code, code]


def test_a_resumed_run_goes_on_with_its_run_of_wandb(tmp_path, wandb):
    for kept in ("offline-run-20260101_120000-first", "run-20260102_120000-later", "run-20260101_130000-between"):
        (tmp_path / "wandb" / kept).mkdir(parents=True)
    for resume in (True, False):
        WandbLog(tmp_path, "alloys", resume).log_metrics({"epoch": 0}, 9)
        wandb.run = None
    assert [begun["id"] for begun in wandb.begun] == ["later", None]
