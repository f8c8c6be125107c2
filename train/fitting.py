"""One training, whatever it learns: a new module and its frames in, the best module and what was done out."""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import lightning
import torch
from lightning.pytorch.utilities import rank_zero_only

from train.captured_fit import captures, padding_percent
from train.checkpoints import BEST, LAST, read_checkpoint
from train.data import FrameDataModule
from train.lock import alone_in
from train.loop import device_name, fitting_trainer, quiet_lightning
from train.module import PotentialModule
from train.options import FitOptions, ModelOptions, RunOptions
from train.outputs import writing_to
from train.report import describe_run
from train.resume import check_end, check_same_run, read_last
from train.run_log import note, say, written_to
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


@contextmanager
def writing_in(folder: Path) -> Iterator[None]:
    """Writes to a run folder, in which no other process writes then, and all that is said to its log.

    Raises:
        ValueError: another process writes there.
        OSError: something cannot be written, by the name of the folder.
    """
    with alone_in(folder), writing_to(folder), written_to(folder):
        yield


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """:func:`writing_in` the folder of a run or of a committee. Whoever stops it is told how to go on."""
    with writing_in(folder):
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            first = not rank_zero_only.rank  # type: ignore[attr-defined]  # Lightning sets it on the function
            if first and any(folder.rglob(LAST)):  # of members, too
                note(how := f"stopped; go on with --resume {folder}")
                print(how, file=sys.stderr, flush=True)
            raise


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
        The module with the weights of least validation loss, read back from their checkpoint, on the device of the
        training, in evaluation mode; and ``about`` with how much was done, by what and where. None in the processes of
        devices other than the first.

    Raises:
        ValueError: the training diverged, or the run to go on with began with other frames.
    """
    frames, last = data.splits.train, folder / LAST if run.resume else None
    if last is not None:
        checkpoint = read_last(folder)
        check_same_run(module, checkpoint, folder)
        check_end(checkpoint, fit)
    captured = captures(model, fit, run, frames)
    trainer = fitting_trainer(folder, fit, run, captured)
    facts = about | {
        "frames": data.splits.sizes(),
        "parameters": sum(weight.numel() for weight in module.parameters() if weight.requires_grad),
        "device": device_name(trainer),
        "dtype": run.dtype,
        "padding_percent": padding_percent(frames, fit.batch_size) if captured else None,
    }
    say(describe_run(facts, folder))
    trainer.fit(module, data, ckpt_path=last, weights_only=True)
    if not trainer.is_global_zero:
        return None
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress.total  # Lightning's types have no `processed`
    facts |= {
        "seconds": training_timer(trainer).time_elapsed(),
        "epochs": math.ceil(batches.processed / trainer.num_training_batches),  # the last one may not be whole
        "steps": trainer.global_step,
    }
    module.load_state_dict(read_checkpoint("run_dir", folder / BEST, ["state_dict"])["state_dict"])
    return module.to(trainer.strategy.root_device).eval(), facts
