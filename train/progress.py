"""What a person sees while the training runs: a bar in a terminal, otherwise a line now and then; all in a file."""

import sys
import time
from datetime import timedelta

from lightning.pytorch.callbacks import Callback, TQDMProgressBar

from train.run_log import note, say
from train.schedule import training_timer

SHOWN = {
    "train/loss": "loss",
    "val/loss": "val loss",
    "val/energy_mae_meV": "val energy meV",
    "val/forces_mae_meV_per_A": "val forces meV/A",
    "val/mae": "val MAE",  # of a property
}
SECONDS_BETWEEN_LINES = 10.0
STEPS_BETWEEN_UPDATES = 20  # of the bar: an update waits for the GPU


class ProgressBar(TQDMProgressBar):
    """One bar per epoch with the losses and validation errors."""

    def __init__(self):
        super().__init__(refresh_rate=STEPS_BETWEEN_UPDATES)

    def get_metrics(self, trainer, module) -> dict:
        metrics = super().get_metrics(trainer, module)
        return {label: metrics[name] for name, label in SHOWN.items() if name in metrics}


class ProgressLines(Callback):
    """The same as text, a line for each epoch in the log file of the run.

    Beside it the time that the training took, all of its sessions together, and what is left, as fast as this session
    was so far. A training that loses patience ends earlier.

    Args:
        on_screen: whether lines are shown, too, at most one in ten seconds.
    """

    def __init__(self, on_screen: bool):
        self.on_screen = on_screen

    def on_train_start(self, trainer, module) -> None:
        self._begun = self._said = time.monotonic()
        self._first_epoch = trainer.current_epoch

    def on_train_epoch_end(self, trainer, module) -> None:
        metrics = trainer.progress_bar_metrics
        values = "  ".join(f"{label} {metrics[name]:.4g}" for name, label in SHOWN.items() if name in metrics)
        if not values:  # of an epoch that an earlier session has told of
            return
        times = f"{clock(training_timer(trainer).time_elapsed())} elapsed, {clock(self._seconds_left(trainer))} left"
        line = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {values}  {times}"
        if not self.on_screen or time.monotonic() - self._said < SECONDS_BETWEEN_LINES:
            note(line)
            return
        self._said = time.monotonic()
        say(line)

    def _seconds_left(self, trainer) -> float:
        """To the last epoch or to the time limit, whichever comes first."""
        epochs_here = trainer.current_epoch + 1 - self._first_epoch
        epochs_left = trainer.max_epochs - trainer.current_epoch - 1
        by_epochs = epochs_left * (time.monotonic() - self._begun) / epochs_here
        by_limit = training_timer(trainer).time_remaining()
        return by_epochs if by_limit is None else max(0.0, min(by_epochs, by_limit))


def clock(seconds: float) -> str:
    """Such as 0:05:10, or 2 days, 1:00:00."""
    return str(timedelta(seconds=round(seconds)))


def progress_callbacks(shown: bool) -> list[Callback]:
    """Lines for the log file and, if the progress is to be ``shown``, a bar or these lines."""
    terminal = sys.stderr.isatty()
    lines = ProgressLines(on_screen=shown and not terminal)
    return [ProgressBar(), lines] if shown and terminal else [lines]
