"""What a run that goes on must have in common with what it was, and whether anything is left for it to do."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.callbacks import Timer
from torch import Tensor

from train.checkpoints import LAST, STATE, read_checkpoint
from train.module import PotentialModule
from train.options import OptimiserOptions

# What a run may be given anew when it goes on: when it ends and where it runs, but not what is fitted.
CHANGEABLE = (
    "max_epochs", "max_time", "patience", "run_dir", "resume", "device", "threads", "num_workers", "tensorboard",
    "wandb", "wandb_project", "progress", "matmul_precision", "capture",
)  # fmt: skip


def read_last(folder: Path) -> dict:
    """The checkpoint that the run in ``folder`` goes on from.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is of something else, or cut short.
    """
    return read_checkpoint("resume", folder / LAST, STATE)


def check_resumed(before: Sequence, now: Sequence) -> None:
    """Raises ValueError where an option that shapes the fit is not what it was ``before``."""
    changed = [
        f"{field.name}={getattr(new, field.name)!r} (it was {getattr(old, field.name)!r})"
        for old, new in zip(before, now, strict=True)
        for field in fields(new)
        if getattr(old, field.name) != getattr(new, field.name) and field.name not in CHANGEABLE
    ]
    if changed:
        raise ValueError(
            f"{', '.join(changed)}: a resumed run keeps what shapes the fit; only {', '.join(CHANGEABLE)} may change"
        )


def check_end(checkpoint: Mapping, fit: OptimiserOptions) -> None:
    """Raises ValueError where the end that ``fit`` asks for lies before what the run of ``checkpoint`` has done.

    An end that is reached but not another one than before is none: results are written again.
    """
    begun = checkpoint["epoch"] + 1
    if fit.max_epochs < begun:
        raise ValueError(
            f"max_epochs={fit.max_epochs}: the run has begun epoch {begun} already, expected {begun} or more; leave "
            "the option out for the end that was planned"
        )
    limit = Timer(fit.max_time).time_remaining()
    used = checkpoint["callbacks"]["Timer"]["time_elapsed"]["train"]
    if limit is not None and limit <= used and fit.max_time != checkpoint["hyper_parameters"]["fit"]["max_time"]:
        raise ValueError(
            f"max_time={fit.max_time!r}: the run has used {timedelta(seconds=round(used))} already, and all of its "
            "sessions count; give more, or leave the option out for the end that was planned"
        )


def check_same_run(module: PotentialModule, checkpoint: Mapping, folder: Path) -> None:
    """Raises ValueError where the run in ``folder`` had another model or other training frames than ``module``."""
    if shapes(checkpoint["state_dict"]) != shapes(module.state_dict()):
        raise ValueError(
            f"resume={str(folder)!r}: {LAST} holds another model than config.yaml and the training frames ask for; "
            "restore the files of the run, or begin a new one"
        )
    before, now = (module.frame_statistics(known) for known in (checkpoint["hyper_parameters"], module.hparams))
    if len(before) != len(now) or not np.allclose(before, now, rtol=1e-6):
        raise ValueError(
            f"resume={str(folder)!r}: the run began with other training frames than these; restore the files that its "
            "config.yaml names, or begin a new run"
        )


def shapes(state_dict: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state_dict.items()}
