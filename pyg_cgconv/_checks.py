"""Checks of arguments that several packages make."""

from __future__ import annotations

from operator import index

import torch
from torch import Tensor

STORED = torch.bfloat16, torch.float16
"""Dtypes in which rows of edges may be stored beside features in float32."""


def check_choice(name: str, given: object, choices: tuple) -> None:
    """Raises a ValueError unless an argument is one of its choices."""
    if given not in choices:
        raise ValueError(f"{name}: expected one of {choices}, got {given!r}")


def whole_numbers(name: str, given: object) -> list[int]:
    """The numbers of a sequence.

    Raises:
        TypeError: it is no sequence of whole numbers.
    """
    try:
        return [index(number) for number in given]  # type: ignore[attr-defined]
    except TypeError as error:
        raise TypeError(f"{name}: expected whole numbers such as (64, 64), got {given!r}") from error


def positive_number(name: str, given: object) -> int:
    """A number of things, at least one.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is not positive.
    """
    try:
        number = index(given)  # type: ignore[arg-type]
    except TypeError as error:
        raise TypeError(f"{name}: expected a whole number, 1 or more, got {given!r}") from error
    if number < 1:
        raise ValueError(f"{name}: expected a whole number, 1 or more, got {given!r}")
    return number


def check_stored(name: str, tensor: Tensor, computed: torch.dtype) -> None:
    """Raises a TypeError unless kernels that compute in one dtype read this tensor."""
    if tensor.dtype != computed and not (computed == torch.float32 and tensor.dtype in STORED):
        raise TypeError(
            f"{name}: dtype {tensor.dtype} differs from that of x, {computed}; convert one of them (beside x in "
            "float32 others may be bfloat16 or float16)"
        )
