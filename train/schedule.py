"""Learning-rate schedules, both with a linear warm-up."""

import math
from collections.abc import Callable

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, Timer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LinearLR, ReduceLROnPlateau


def training_timer(trainer: Trainer) -> Timer:
    """The clock of a training: it starts with the first step and stops with the last, validation included."""
    # Lightning sets the attribute outside of the class, where its type is not seen.
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next(callback for callback in callbacks if isinstance(callback, Timer))


def training_progress(trainer: Trainer, step: int) -> float:
    """The part of the training that is over, 0 to 1: of its steps or of its time limit, whichever is nearer its end."""
    timer = training_timer(trainer)
    progress = step / max(1, trainer.estimated_stepping_batches)
    remaining = timer.time_remaining()
    if remaining is not None:
        elapsed = timer.time_elapsed()
        progress = max(progress, elapsed / (elapsed + max(0.0, remaining) or 1.0))
        progress = trainer.strategy.broadcast(progress)  # clocks differ, but all devices have to take the same step
    return min(1.0, progress)


def warmup_factor(step: int, warmup_steps: int) -> float:
    """Rises linearly from ``1 / (warmup_steps + 1)`` at step 0 to 1 at step ``warmup_steps``."""
    return min(1.0, (step + 1) / (warmup_steps + 1))


def cosine_factor(progress: float) -> float:
    """Falls from 1 to 0 as half a cosine wave (`SGDR <https://arxiv.org/abs/1608.03983>`_ without restarts)."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def cosine(optimizer: Optimizer, warmup_steps: int, progress: Callable[[int], float]) -> list[dict]:
    """Cosine decay to zero over the whole training; ``progress(step)`` says how much of it is over."""
    schedule = LambdaLR(optimizer, lambda step: warmup_factor(step, warmup_steps) * cosine_factor(progress(step)))
    return [{"scheduler": schedule, "interval": "step"}]


def plateau(optimizer: Optimizer, warmup_steps: int, factor: float, patience: int, monitor: str) -> list[dict]:
    """Multiply by ``factor`` when ``monitor`` has not improved for more than ``patience`` epochs.

    The second schedule is to be stepped with the value of ``monitor``, after each validation.
    """
    decay = ReduceLROnPlateau(optimizer, factor=factor, patience=patience)
    warmup = LinearLR(optimizer, start_factor=warmup_factor(0, warmup_steps), total_iters=warmup_steps)
    return [
        {"scheduler": warmup, "interval": "step"},
        {"scheduler": decay, "interval": "epoch", "monitor": monitor},
    ]


def constant(optimizer: Optimizer, warmup_steps: int) -> list[dict]:
    return [{"scheduler": LambdaLR(optimizer, lambda step: warmup_factor(step, warmup_steps)), "interval": "step"}]
