"""Lightning's loop, set up for potentials: what is kept, what limits it, what is printed."""

import logging
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.strategies import DDPStrategy

from train.averaging import ExponentialMovingAverage
from train.captured_fit import CapturedStrategy
from train.checkpoints import AtomicCheckpointIO, Checkpoints
from train.logs import run_loggers
from train.module import MONITOR
from train.options import FitOptions, RunOptions
from train.progress import progress_callbacks

# Advice of Lightning that a person who trains a small potential on purpose cannot use.
EXPECTED_WARNINGS = (
    ".*does not have many workers.*",
    ".*number of training batches.*is smaller than the logging interval.*",
    ".*exists and is not empty.*",
    ".*GPU available but not used.*",
    ".*LeafSpec.*is deprecated.*",
    # FrameDataModule and EpochSampler take up the order of batches where it was left, not the loader.
    ".*your dataloader is not resumable.*",
    # Means are of all devices before they are logged.
    ".*sync_dist=True.*",
    # The name that replaces it is not known to all versions of PyTorch that serve.
    ".*broadcast_buffers. is deprecated.*",
)


class Patience(EarlyStopping):
    """Ends the training after ``patience`` epochs without a smaller validation loss; a resumed run may change it."""

    def __init__(self, patience: int):
        super().__init__(MONITOR, patience=patience, check_on_train_epoch_end=False)

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict | {"patience": self.patience})


def fitting_trainer(folder: Path, fit: FitOptions, run: RunOptions, captured: bool = False) -> Trainer:
    """Keeps the best and the last checkpoint and a CSV log in ``folder``, averages the weights, watches the time.

    Its steps are CUDA graphs if ``captured``, see :func:`train.captured_fit.captures`.
    """
    callbacks = [Checkpoints(folder, MONITOR), Timer(fit.max_time, verbose=False)]
    if fit.ema_decay:
        callbacks.append(ExponentialMovingAverage(fit.ema_decay))
    if fit.patience:
        callbacks.append(Patience(fit.patience))
    callbacks += progress_callbacks(run.progress)
    return Trainer(
        accelerator=run.accelerator,
        devices=run.devices,
        num_nodes=run.nodes,
        strategy=CapturedStrategy("cuda:0") if captured else strategy(run),
        use_distributed_sampler=False,  # FrameDataModule deals the frames out
        plugins=[AtomicCheckpointIO()],
        max_epochs=fit.max_epochs,
        accumulate_grad_batches=fit.accumulate,
        gradient_clip_val=fit.gradient_clip or None,
        callbacks=callbacks,
        logger=run_loggers(folder, run),
        inference_mode=False,  # forces are gradients
        enable_model_summary=False,
        enable_progress_bar=run.progress and sys.stderr.isatty(),
        num_sanity_val_steps=0,
    )


def strategy(run: RunOptions) -> DDPStrategy | str:
    # Buffers are constants: to send them again in each validation would wait for devices that have a batch more.
    return DDPStrategy(broadcast_buffers=False) if run.devices * run.nodes > 1 else "auto"


def device_name(fitted: Trainer) -> str:
    device = fitted.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return name if fitted.world_size == 1 else f"{fitted.world_size} x {name}"


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
