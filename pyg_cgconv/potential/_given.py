"""A potential as an engine takes it: one in memory, a file, or a run folder."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

import torch

from ._arguments import check_readout, floating_dtype
from ._potential import Potential


def for_inference(
    potential: Potential | str | os.PathLike,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    head: str | None = None,
    energy: bool = True,
) -> Potential:
    """A copy of a potential, or that of a file, for energies and their derivatives: in evaluation mode, without
    gradients of parameters and without heads. Device and dtype are its own if None, ``head`` is its first one, of which
    a warning tells where there are others. It must have an ``energy``, or may be one of charges and dipoles alone.

    Raises:
        TypeError: ``potential`` is neither a potential nor a path.
        FileNotFoundError: there is no such file.
        ValueError: a file holds no potential, the model has no energy or no such head, or an argument makes no sense.
    """
    given = loaded(potential)
    own = given.with_head(head_or_first(head, given.hyperparameters["heads"], stacklevel=4))
    check_readout(own.hyperparameters, energy)
    dtype = own.dtype if dtype is None else floating_dtype(dtype)
    own.hyperparameters["dtype"] = str(dtype).removeprefix("torch.")
    device = own.shift.device if device is None else usable_device(device)
    return own.to(device, dtype).eval().requires_grad_(False)


def head_or_first(head: str | None, known: Sequence[str] | None, stacklevel: int = 3) -> str | None:
    """``head``, or, if it is None, the first of those that are ``known``; warns where there are others, in the
    name of the caller at ``stacklevel``."""
    if head is None and known is not None and len(known) > 1:
        warnings.warn(
            f"head: none is given, so {known[0]} is taken, the first of {', '.join(known)}; name one, such as "
            f"head={known[0]!r}",
            stacklevel=stacklevel,
        )
    return known[0] if head is None and known else head


def loaded(potential: Potential | str | os.PathLike) -> Potential:
    """A potential, or that of a file; errors are those of :func:`for_inference`."""
    return potential if isinstance(potential, Potential) else _load(potential)


def _load(path: str | os.PathLike) -> Potential:
    if not isinstance(path, (str, os.PathLike)):
        given = f"{type(path).__name__}; CommitteeCalculator takes several" if isinstance(path, list) else repr(path)
        raise TypeError(f"potential: expected a pyg_cgconv.Potential or the path of a saved one, got {given}")
    try:
        return Potential.load(path)
    except ValueError as error:
        raise ValueError(f"potential: {error}") from error
    except FileNotFoundError as error:
        raise FileNotFoundError(f"potential: {error}") from error


def usable_device(given: torch.device | str) -> torch.device:
    """The device, with its number; raises a ValueError that says why it cannot be used."""
    try:
        return torch.empty(0, device=given).device
    except (RuntimeError, AssertionError) as error:  # torch's, for unknown names, absent devices, builds without CUDA
        raise ValueError(f"device: {given!r} cannot be used here: {str(error).splitlines()[0]}") from error
