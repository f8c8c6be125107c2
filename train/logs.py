"""The logs of a run. They count epochs from 1, as its plots and messages do."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from train.checkpoints import continue_log
from train.options import RunOptions
from train.outputs import written_whole
from train.resume import read_last

WANDB_PROJECT = "pyg_cgconv"


class CSVLog(CSVLogger):
    """``metrics.csv``."""

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        super().log_metrics(epoch_from_one(metrics), step)


class TensorBoardLog(TensorBoardLogger):
    """Files for TensorBoard."""

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        super().log_metrics(epoch_from_one(metrics), step)


class WandbLog(WandbLogger):
    """A run of Weights & Biases, whose files lie in the run folder; a resumed training goes on with the same one.

    Args:
        folder: of the run; it gives the name, too.
        project: where it is listed.
        resume: whether the last run in ``folder`` goes on.
    """

    def __init__(self, folder: Path, project: str, resume: bool):
        super().__init__(
            name=str(folder), project=project, save_dir=folder, id=last_wandb_run(folder) if resume else None
        )

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        super().log_metrics(epoch_from_one(metrics), step)

    def finalize(self, status: str) -> None:
        """Ends the run: the next one of this process, as of a committee, is one of its own."""
        super().finalize(status)
        import wandb

        if wandb.run is not None:
            wandb.finish(exit_code=0 if status == "success" else 1)


def last_wandb_run(folder: Path) -> str | None:
    """The id of the last run that Weights & Biases has kept in ``folder``, in run-<time>-<id>; None without one."""
    kept = [path.name.partition("run-")[2] for path in folder.glob("wandb/*run-*-*")]
    return max(kept).rpartition("-")[2] if kept else None


def epoch_from_one(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What Lightning wants to be logged, with its epoch, if there is one, counted from 1 instead of 0."""
    return {name: value + 1 if name == "epoch" else value for name, value in metrics.items()}


def run_loggers(folder: Path, run: RunOptions) -> list[Logger]:
    """The CSV log and those that are asked for; those of a resumed run go on after its last checkpoint."""
    step = read_last(folder)["global_step"] if run.resume else None
    csv_log = CSVLog(folder, name="", version="")
    if step is not None:
        count_from_one(folder / "metrics.csv")
        continue_log(csv_log, step)
    loggers: list[Logger] = [csv_log]
    if run.tensorboard:
        purge = None if step is None else step + 1
        loggers.append(TensorBoardLog(folder, name="", version="tensorboard", purge_step=purge))
    if run.wandb:
        loggers.append(WandbLog(folder, run.wandb_project or WANDB_PROJECT, resume=run.resume is not None))
    return loggers


@rank_zero_only
def count_from_one(path: Path) -> None:
    """Writes a CSV log of version 0.1.0 anew, which counted epochs from 0; leaves others as they are."""
    if not path.exists():
        return
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    if all(int(row["epoch"]) for row in rows):
        return
    with written_whole(path) as unfinished, open(unfinished, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "epoch": int(row["epoch"]) + 1} for row in rows)
