"""What is kept of a training while it runs, and how it goes on from there."""

import csv
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only

BEST, LAST = "best.ckpt", "last.ckpt"
# Longest time that a killed training loses in an epoch of hours; a checkpoint is written in a second.
TIME_BETWEEN_CHECKPOINTS = timedelta(minutes=10)
# On a GPU an epoch of a small molecule takes less than a second, and a checkpoint a tenth of one.
TIME_BETWEEN_EPOCHS_KEPT = timedelta(seconds=20)
STEPS_BETWEEN_LOOKS = 50  # at the clock: with several devices each look waits for the first one


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all: a killed training leaves the one before."""

    def save_checkpoint(self, checkpoint: dict, path, storage_options=None) -> None:
        unfinished = f"{path}.unfinished"
        super().save_checkpoint(checkpoint, unfinished, storage_options)
        os.replace(unfinished, path)


class BestCheckpoint(ModelCheckpoint):
    """``best.ckpt``: that of the least validation loss, remembered also if the run folder is moved between sessions."""

    def __init__(self, folder: Path, monitor: str):
        name = Path(BEST).stem
        super().__init__(
            folder, filename=name, monitor=monitor, enable_version_counter=False, save_on_train_epoch_end=False
        )

    def load_state_dict(self, state_dict: dict) -> None:
        best = str(Path(self.dirpath) / BEST)
        score = state_dict["best_model_score"]
        here = {"dirpath": self.dirpath, "best_model_path": best, "kth_best_model_path": best}
        super().load_state_dict(state_dict | here | {"best_k_models": {best: score}, "last_model_path": ""})


class LastCheckpoint(Checkpoint):
    """``last.ckpt``: all that a training needs to go on, after validations and every ten minutes between.

    Of validations less than 20 seconds after the last checkpoint only that of the last epoch gets one. Unlike
    Lightning's ``save_last`` it does not wait for a better validation loss or for the end of an epoch.
    """

    def __init__(self, folder: Path):
        self.path = folder / LAST

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._begun = self._saved = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs, batch, batch_idx: int) -> None:
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0  # else a gradient half summed would be lost
        if not stepped or trainer.global_step % STEPS_BETWEEN_LOOKS:
            return
        if self._is_later_by(TIME_BETWEEN_CHECKPOINTS, trainer):
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.state.fn != "fit":
            return
        first, last = self._saved == self._begun, trainer.current_epoch + 1 == trainer.max_epochs
        if first or last or trainer.should_stop or self._is_later_by(TIME_BETWEEN_EPOCHS_KEPT, trainer):
            self._save(trainer)

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt) and trainer.is_global_zero and self.path.exists():
            print(f"stopped; go on with --resume {self.path.parent}", file=sys.stderr)

    def _is_later_by(self, time_between: timedelta, trainer: Trainer) -> bool:
        return trainer.strategy.broadcast(time.monotonic() - self._saved > time_between.total_seconds())

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self._saved = time.monotonic()


@rank_zero_only
def continue_log(logger: CSVLogger, step: int) -> None:
    """Puts the rows that an earlier session wrote up to ``step`` at the beginning of ``logger``'s file.

    Later rows are dropped: their steps are done again. Without this, Lightning would drop all of them.
    """
    path = Path(logger.log_dir) / "metrics.csv"
    rows = []
    if path.exists():
        with open(path, newline="") as file:
            rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
    logger.experiment.metrics.extend(row for row in rows if int(row["step"]) <= step)
    logger.save()
