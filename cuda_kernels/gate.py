"""Gated nonlinearities of rows: scalars that are activated, and scalars that multiply others when they are."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, IntEnum
from typing import NamedTuple

import numpy as np


class Order(Enum):
    """What a kernel computes: the rows, the gradient by the input, or the gradients of that."""

    FORWARD = "forward"
    BACKWARD = "backward"
    DOUBLE_BACKWARD = "double_backward"


class Kind(IntEnum):
    """Of a scalar: its activation, silu or tanh."""

    SILU = 0
    TANH = 1


class Gains(NamedTuple):
    """Factors of the activations."""

    silu: float
    tanh: float


class Unit(NamedTuple):
    """A scalar of the input and what is made of it.

    Attributes:
        kind: its activation.
        scalar: its place in a row of the input.
        first_out: where in a row of the output it goes, or the first component that it multiplies.
        first_in: the first component that it multiplies, in a row of the input.
        stride: from one of these components to the next, in both rows.
        dim: how many they are; none if the activated scalar goes to the output itself.
    """

    kind: Kind
    scalar: int
    first_out: int
    first_in: int = 0
    stride: int = 0
    dim: int = 0


def table(units: Sequence[Unit]) -> np.ndarray:
    """A row for each attribute of the units (6, units) int32, as the kernels read it."""
    return np.array(units, np.int32).reshape(-1, len(Unit._fields)).T.copy()
