"""Lightning's loop, set up for potentials: what is kept, what limits it, what is printed."""

import logging
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.loggers import CSVLogger

from train.averaging import ExponentialMovingAverage
from train.module import MONITOR
from train.options import FitOptions, RunOptions
from train.progress import progress_callback

# Advice of Lightning that a person who trains a small potential on purpose cannot use.
EXPECTED_WARNINGS = (
    ".*does not have many workers.*",
    ".*number of training batches.*is smaller than the logging interval.*",
    ".*exists and is not empty.*",
    ".*GPU available but not used.*",
    ".*LeafSpec.*is deprecated.*",
)


def trainer(run: RunOptions, **arguments) -> Trainer:
    """A trainer on the chosen device. Forces are gradients, which inference mode would forbid."""
    return Trainer(
        accelerator=run.accelerator,
        devices=1,
        inference_mode=False,
        enable_model_summary=False,
        enable_progress_bar=run.progress and sys.stderr.isatty(),
        **arguments,
    )


def fitting_trainer(folder: Path, fit: FitOptions, run: RunOptions) -> Trainer:
    """Keeps the best and the last checkpoint and a CSV log in ``folder``, averages the weights, watches the time."""
    callbacks = [
        ModelCheckpoint(folder, filename="best", monitor=MONITOR, save_last=True, enable_version_counter=False),
        Timer(fit.max_time, verbose=False),
    ]
    if fit.ema_decay:
        callbacks.append(ExponentialMovingAverage(fit.ema_decay))
    if run.progress:
        callbacks.append(progress_callback())
    return trainer(
        run,
        max_epochs=fit.max_epochs,
        gradient_clip_val=fit.gradient_clip or None,
        callbacks=callbacks,
        logger=CSVLogger(folder, name="", version=""),
        num_sanity_val_steps=0,
    )


def predicting_trainer(run: RunOptions) -> Trainer:
    return trainer(run, logger=False, callbacks=[])


def device_name(fitted: Trainer) -> str:
    device = fitted.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


@contextmanager
def quiet_lightning():
    """Without Lightning's lines on devices, tips and workers; other warnings and all errors come through."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message)
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
