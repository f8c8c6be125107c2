"""Derivatives of a contraction as calls of other contractions: which one, with which of the tensors at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

from torch import Tensor

from cuda_kernels.contraction import Contraction

Evaluate = Callable[[Contraction, list[Tensor]], Sequence[Tensor]]
"""The outputs of a contraction of these operands."""


class _Formula(NamedTuple):
    """A derivative, and where its operands come from and its outputs go to.

    Input n of `contraction` is number `arguments[n]` of the tensors at hand; result n is number `results[n]` of its
    outputs, or zero where that is None.
    """

    contraction: Contraction
    arguments: list[int]
    results: list[int | None]

    def evaluated(self, evaluate: Evaluate, values: Sequence[Tensor | None]) -> list[Tensor | None]:
        if not self.contraction.outputs:
            return [None] * len(self.results)
        # None stands for tensors that the contraction has not.
        outputs = evaluate(self.contraction, [values[n] for n in self.arguments])  # type: ignore[misc]
        return [None if n is None else outputs[n] for n in self.results]


def gradients(
    contraction: Contraction,
    evaluate: Evaluate,
    operands: Sequence[Tensor],
    cotangents: Sequence[Tensor | None],
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """The gradient by each operand that is `needed`; None where it is not, or is zero."""
    given = tuple(cotangent is not None for cotangent in cotangents)
    return _gradient(contraction, given, tuple(needed)).evaluated(evaluate, (*operands, *cotangents))


def tangents(
    contraction: Contraction, evaluate: Evaluate, operands: Sequence[Tensor], changes: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """The change of each output to first order with the operands' `changes`; None where there is none."""
    given = tuple(change is not None for change in changes)
    return _tangent(contraction, given).evaluated(evaluate, (*operands, *changes))


@cache
def _gradient(contraction: Contraction, given: tuple[bool, ...], needed: tuple[bool, ...]) -> _Formula:
    cotangents, wanted = _chosen(contraction.outputs, given), _chosen(contraction.inputs, needed)
    derivative, names = contraction.derivative(cotangents, wanted)
    at_hand = [*contraction.inputs, *(names.get(output) for output in contraction.outputs)]
    return _formula(derivative, at_hand, contraction.inputs)


@cache
def _tangent(contraction: Contraction, given: tuple[bool, ...]) -> _Formula:
    derivative, names = contraction.tangent(_chosen(contraction.inputs, given))
    at_hand = [*contraction.inputs, *(names.get(operand) for operand in contraction.inputs)]
    return _formula(derivative, at_hand, contraction.outputs)


def _chosen(names: Sequence[str], which: Sequence[bool]) -> tuple[str, ...]:
    return tuple(name for name, chosen in zip(names, which, strict=True) if chosen)


def _formula(derivative: Contraction, at_hand: Sequence[str | None], results: Sequence[str]) -> _Formula:
    """The formula whose tensors at hand have these names, the later one where a name occurs twice."""
    place = {name: n for n, name in enumerate(at_hand)}
    output = {name: n for n, name in enumerate(derivative.outputs)}
    return _Formula(derivative, [place[name] for name in derivative.inputs], [output.get(name) for name in results])
