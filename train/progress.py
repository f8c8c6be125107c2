"""What a person sees while the training runs: a bar in a terminal, a line now and then in a log file."""

import sys
import time

from lightning.pytorch.callbacks import Callback, TQDMProgressBar

SHOWN = {
    "train/loss": "loss",
    "val/loss": "val loss",
    "val/forces_mae_meV_per_A": "val forces meV/A",
    "val/mae": "val MAE",  # of a property
}
SECONDS_BETWEEN_LINES = 10.0
STEPS_BETWEEN_UPDATES = 20  # of the bar: an update waits for the GPU


class ProgressBar(TQDMProgressBar):
    """One bar per epoch with the losses and a validation error."""

    def __init__(self):
        super().__init__(refresh_rate=STEPS_BETWEEN_UPDATES)

    def get_metrics(self, trainer, module) -> dict:
        metrics = super().get_metrics(trainer, module)
        return {label: metrics[name] for name, label in SHOWN.items() if name in metrics}


class ProgressLines(Callback):
    """The same as text, at most one line in ten seconds: a bar written to a file would fill it."""

    def on_train_start(self, trainer, module) -> None:
        self._printed = time.monotonic()

    def on_train_epoch_end(self, trainer, module) -> None:
        if time.monotonic() - self._printed < SECONDS_BETWEEN_LINES:
            return
        self._printed = time.monotonic()
        metrics = trainer.progress_bar_metrics
        values = "  ".join(f"{label} {metrics[name]:.4g}" for name, label in SHOWN.items() if name in metrics)
        print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {values}", flush=True)


def progress_callback() -> Callback:
    return ProgressBar() if sys.stderr.isatty() else ProgressLines()
