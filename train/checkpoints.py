"""What is kept of a training while it runs, and how it goes on from there."""

import csv
import math
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import lightning
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from train.averaging import validated_weights
from train.outputs import written_whole
from train.termination import Termination

BEST, LAST = "best.ckpt", "last.ckpt"
# What a training cannot go on without.
STATE = (
    "state_dict", "hyper_parameters", "epoch", "global_step", "loops", "callbacks", "optimizer_states", "lr_schedulers",
)  # fmt: skip
# Longest time that a killed training loses in an epoch of hours; a checkpoint is written in a second.
TIME_BETWEEN_CHECKPOINTS = timedelta(minutes=10)
# On a GPU an epoch of a small molecule takes less than a second, and the checkpoint of 5 million weights half of one.
TIME_BETWEEN_EPOCHS_KEPT = timedelta(seconds=20)
STEPS_BETWEEN_LOOKS = 50  # at the clock: with several devices each look waits for the first one


def read_checkpoint(option: str, path: Path, expected: Sequence[str] = ()) -> dict:
    """What a training wrote, on the CPU. It is read as data: nothing in the file is executed.

    Args:
        option: the name of the option that ``path`` comes from, for messages.
        path: the file.
        expected: what must be in it.

    Raises:
        FileNotFoundError, PermissionError: the file cannot be opened.
        ValueError: it is of something else, holds more than data, or is cut short.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # torch.load raises nearly anything for a file of something else
        raise ValueError(_foreign(option, path, "it is cut short, or holds something else than data")) from error
    if not isinstance(checkpoint, dict):
        raise ValueError(_foreign(option, path, f"expected a dict in it, got {type(checkpoint).__name__}"))
    if missing := [name for name in expected if name not in checkpoint]:
        raise ValueError(_foreign(option, path, f"it has no {', '.join(missing)}"))
    return checkpoint


def _foreign(option: str, path: Path, reason: str) -> str:
    return (
        f"{option}={str(path)!r} is no checkpoint that `python -m train` wrote: {reason}. Nothing in it was executed; "
        "copy it again, or name another one"
    )


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all: a killed training leaves the one before. Reads it as data."""

    def save_checkpoint(self, checkpoint: dict, path, storage_options=None) -> None:
        with written_whole(Path(path)) as unfinished:
            super().save_checkpoint(checkpoint, unfinished, storage_options)

    def load_checkpoint(self, path, map_location=None, weights_only: bool | None = True) -> dict:
        return read_checkpoint("resume", path, STATE)


class Checkpoints(Checkpoint):
    """``best.ckpt``, the weights of the least validation loss, and ``last.ckpt``, all that a training needs to go on.

    At a SIGTERM both are written after the step that is being done, and the process exits, see
    :class:`train.termination.Termination`.

    Validations are known to the files at the first and the last of them and where 20 seconds have passed; between
    validations ``last.ckpt`` is written every ten minutes. Until then the best weights stay in the device's memory: on
    a GPU an epoch of a small molecule takes less time than a file. Both files are written together, so that a training
    which goes on from the last one finds the best one as it was then, also in a folder that was moved.

    Args:
        folder: where they are written.
        monitor: the name of the validation loss among the logged metrics.
    """

    def __init__(self, folder: Path, monitor: str):
        self.folder, self.monitor = folder, monitor
        self.best_loss = math.inf
        self._best: dict | None = None  # what is not yet in best.ckpt
        self._termination = Termination()

    def state_dict(self) -> dict[str, float]:
        return {"best_loss": self.best_loss}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.best_loss = state_dict["best_loss"]

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._begun = self._saved = time.monotonic()
        self._termination.listen()

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs, batch, batch_idx: int) -> None:
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0  # else a gradient half summed would be lost
        if not stepped or trainer.is_last_batch:  # a validation follows, which has to be done before
            return
        if self._termination.is_asked_for(trainer):
            self._save(trainer)
            self._termination.exit(trainer)
        if trainer.global_step % STEPS_BETWEEN_LOOKS == 0 and self._is_later_by(TIME_BETWEEN_CHECKPOINTS, trainer):
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.state.fn != "fit":
            return
        loss = float(trainer.callback_metrics[self.monitor])
        if loss < self.best_loss:
            self.best_loss, self._best = loss, self._snapshot(trainer, module)
        first, last = self._saved == self._begun, trainer.current_epoch + 1 == trainer.max_epochs
        ends = self._termination.is_asked_for(trainer)
        if first or last or ends or trainer.should_stop or self._is_later_by(TIME_BETWEEN_EPOCHS_KEPT, trainer):
            self._save(trainer)
        if ends:
            self._termination.exit(trainer)

    @staticmethod
    def _snapshot(trainer: Trainer, module: LightningModule) -> dict:
        """What ``module.load_from_checkpoint`` reads."""
        return {
            "state_dict": {name: value.clone() for name, value in validated_weights(trainer, module).items()},
            module.CHECKPOINT_HYPER_PARAMS_KEY: dict(module.hparams),
            "epoch": trainer.current_epoch,
            "global_step": trainer.global_step,
            "pytorch-lightning_version": lightning.__version__,
        }

    def _is_later_by(self, time_between: timedelta, trainer: Trainer) -> bool:
        return trainer.strategy.broadcast(time.monotonic() - self._saved > time_between.total_seconds())

    def _save(self, trainer: Trainer) -> None:
        if self._best is not None:
            trainer.strategy.save_checkpoint(self._best, self.folder / BEST)
            self._best = None
        trainer.save_checkpoint(self.folder / LAST)
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
