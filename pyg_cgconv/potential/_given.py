"""A potential as an engine takes it: one in memory, a file, or a run folder."""

from __future__ import annotations

import os

import torch

from ._arguments import check_readout, floating_dtype
from ._potential import Potential


def for_inference(
    potential: Potential | str | os.PathLike,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    head: str | None = None,
) -> Potential:
    """A copy of a potential, or that of a file, for energies and their derivatives: in evaluation mode, without
    gradients of parameters and without heads. Device and dtype are its own if None, ``head`` is its first one.

    Raises:
        TypeError: ``potential`` is neither a potential nor a path.
        FileNotFoundError: there is no such file.
        ValueError: a file holds no potential, the model has no energy or no such head, or an argument makes no sense.
    """
    if isinstance(potential, Potential):
        own = potential
    elif isinstance(potential, (str, os.PathLike)):
        own = Potential.load(potential)
    else:
        raise TypeError(f"potential: expected a pyg_cgconv.Potential or the path of a saved one, got {potential!r}")
    own = own.with_head(head)
    check_readout(own.hyperparameters)
    dtype = own.dtype if dtype is None else floating_dtype(dtype)
    own.hyperparameters["dtype"] = str(dtype).removeprefix("torch.")
    device = own.shift.device if device is None else usable_device(device)
    return own.to(device, dtype).eval().requires_grad_(False)


def usable_device(given: torch.device | str) -> torch.device:
    """The device, with its number; raises a ValueError that says why it cannot be used."""
    try:
        return torch.empty(0, device=given).device
    except (RuntimeError, AssertionError) as error:  # torch's, for unknown names, absent devices, builds without CUDA
        raise ValueError(f"device: {given!r} cannot be used here: {str(error).splitlines()[0]}") from error
