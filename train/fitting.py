"""One training, whatever it learns: a new module and its frames in, the best module and what was done out."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import lightning
import numpy as np
import torch

from train.captured_fit import captures, padding_percent
from train.checkpoints import BEST, LAST
from train.data import FrameDataModule
from train.loop import device_name, fitting_trainer, quiet_lightning
from train.module import PotentialModule
from train.options import FitOptions, ModelOptions, RunOptions
from train.report import describe_run
from train.schedule import training_timer

Module = TypeVar("Module", bound=PotentialModule)


@contextmanager
def session(run: RunOptions) -> Iterator[None]:
    """Threads, precision of matrix products and random numbers as ``run`` asks for, and few words from Lightning."""
    if run.threads:
        torch.set_num_threads(run.threads)
    torch.set_float32_matmul_precision(run.matmul_precision)
    with quiet_lightning():
        lightning.seed_everything(run.seed, workers=True, verbose=False)
        yield


def fit_module(
    module: Module,
    data: FrameDataModule,
    folder: Path,
    about: dict,
    model: ModelOptions,
    fit: FitOptions,
    run: RunOptions,
) -> tuple[Module, dict] | None:
    """Trains ``module`` and leaves checkpoints and the log in ``folder``.

    With ``run.resume`` it goes on from the last checkpoint there.

    Args:
        module: with fresh weights.
        data: what it is trained on.
        folder: an existing folder.
        about: what is learned, the first lines of ``metrics.json``.

    Returns:
        The module of least validation loss, read back from its checkpoint, on the device of the training, in evaluation
        mode; and ``about`` with how much was done, by what and where. None in the processes of devices other than the
        first.

    Raises:
        ValueError: the training diverged, or the run to go on with began with other frames.
    """
    frames, last = data.splits.train, folder / LAST if run.resume else None
    if last is not None:
        check_same_frames(module, last)
    captured = captures(model, fit, run, frames)
    trainer = fitting_trainer(folder, fit, run, captured)
    facts = about | {
        "frames": data.splits.sizes(),
        "parameters": sum(weight.numel() for weight in module.parameters() if weight.requires_grad),
        "device": device_name(trainer),
        "dtype": run.dtype,
        "padding_percent": padding_percent(frames, fit.batch_size) if captured else None,
    }
    if trainer.is_global_zero:
        print(describe_run(facts, folder), flush=True)
    trainer.fit(module, data, ckpt_path=last, weights_only=False)
    if not trainer.is_global_zero:
        return None
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress.total  # Lightning's types have no `processed`
    facts |= {
        "seconds": training_timer(trainer).time_elapsed(),
        "epochs": math.ceil(batches.processed / trainer.num_training_batches),  # the last one may not be whole
        "steps": trainer.global_step,
    }
    best = type(module).load_from_checkpoint(folder / BEST, map_location="cpu", weights_only=False)
    return best.to(trainer.strategy.root_device).eval(), facts


def check_same_frames(module: PotentialModule, checkpoint: Path) -> None:
    """Raises ValueError where the training frames are not those that the run of ``checkpoint`` began with."""
    kept = torch.load(checkpoint, map_location="cpu", weights_only=False)["hyper_parameters"]
    before, now = module.frame_statistics(kept), module.frame_statistics(module.hparams)
    if len(before) != len(now) or not np.allclose(before, now, rtol=1e-6):
        raise ValueError(
            f"resume={str(checkpoint.parent)!r}: the run began with other training frames than these; restore the "
            "files that its config.yaml names, or begin a new run"
        )
