"""Derivatives of a form M, of any order: which products are summed, and by what they are differentiated.

M is linear in each of its factors. Everything that is ever computed is a set of partial derivatives of a sum of such
products. For a convolution, whose factors are g (the output's cotangent), x, y and w,

    forward           g.x.y.w                            > g
    backward          g.x.y.w                            > x,y,w
    double backward   g.x1.y.w + g.x.y1.w + g.x.y.w1     > g,x,y,w
    tangent           g.x1.y.w + g.x.y1.w + g.x.y.w1     > g

The derivative by g is the output; x1, y1 and w1 are cotangents of the backward's outputs, or tangents of the inputs. A
product of features with themselves has the form g.x.x.1: its derivative by x is the sum over both places. So it is for
polynomials, whose coefficients c come second: g.c.x.x.x.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import count
from typing import NamedTuple

from .problem import ABSENT, WEIGHT, Problem, base


@dataclass(frozen=True)
class Contraction:
    """The derivatives, by the operands `outputs`, of the sum of M(*term) over `terms`.

    An operand's name is a factor's, then a number for further operands like it.
    """

    terms: tuple[tuple[str, ...], ...]
    outputs: tuple[str, ...]

    def __hash__(self):
        return hash(self.spec)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """The operands whose values the outputs depend on."""
        needed = {
            operand
            for term in self.terms
            for place, output in enumerate(term)
            if output in self.outputs
            for operand in term[:place] + term[place + 1 :]
        }
        return self._sorted(needed - {ABSENT})

    @cached_property
    def spec(self) -> str:
        """A readable name, such as "g.x.y.w>x,y,w"; `Contraction.parse` reads it."""
        return "+".join(".".join(term) for term in self.terms) + ">" + ",".join(self.outputs)

    @staticmethod
    @cache
    def parse(spec: str) -> Contraction:
        terms, outputs = spec.split(">")
        return Contraction(tuple(tuple(term.split(".")) for term in terms.split("+")), tuple(outputs.split(",")))

    def restricted(self, outputs: Iterable[str]) -> Contraction:
        """Only these of the outputs, and the terms that they occur in."""
        outputs = self._sorted(outputs)
        return Contraction(tuple(term for term in self.terms if set(term) & set(outputs)), outputs)

    @cache  # noqa: B019  (a handful of derivatives are ever taken)
    def derivative(self, cotangents: tuple[str, ...], wanted: tuple[str, ...]) -> Derivative:
        """The gradient of <cotangent, output>, summed over the outputs in `cotangents`, by the inputs in `wanted`."""
        names = {output: self._fresh(output) for output in cotangents}
        terms = self._replaced(names)
        occurring = {operand for term in terms for operand in term}
        return Derivative(Contraction(terms, ()).restricted(set(wanted) & occurring), names)

    @cache  # noqa: B019
    def tangent(self, given: tuple[str, ...]) -> Derivative:
        """The outputs' change to first order as the inputs in `given` change; outputs that do not change are left out.

        Each term is linear in each of its factors: its change is the sum of the terms in which one factor is replaced
        by its change.
        """
        names: dict[str, str] = {}
        taken = {*self.inputs, *self.outputs}
        for operand in given:
            numbered = (base(operand) + str(number) for number in count(1))
            names[operand] = next(name for name in numbered if name not in taken)
            taken.add(names[operand])
        terms = self._replaced(names)
        occurring = {operand for term in terms for operand in term}
        return Derivative(Contraction(terms, ()).restricted(set(self.outputs) & occurring), names)

    def _replaced(self, names: dict[str, str]) -> tuple[tuple[str, ...], ...]:
        """The terms in which one place that has an operand in `names` has the new name instead: one for each place."""
        return tuple(
            (*term[:place], new, *term[place + 1 :])
            for term in self.terms
            for old, new in names.items()
            for place, operand in enumerate(term)
            if operand == old
        )

    def _fresh(self, output: str) -> str:
        """The name of an output's cotangent: the output's own where its value is not an input, else the first free
        number.

        The cotangent of what a path may lack, weights or a polynomial's features, has a number in any case: there the
        operand itself is one, and its cotangents zero.
        """
        name = base(output)
        number = 1 if name in map(base, self.terms[0][WEIGHT:]) else 0
        while (fresh := name + (str(number) if number else "")) in self.inputs:
            number += 1
        return fresh

    def _sorted(self, operands: Iterable[str]) -> tuple[str, ...]:
        """In the order of M's factors, then of their numbers."""
        factors = [base(operand) for operand in self.terms[0]] if self.terms else []
        return tuple(sorted(operands, key=lambda name: (factors.index(base(name)), int(name[len(base(name)) :] or 0))))


class Derivative(NamedTuple):
    """A contraction whose outputs are the derivatives that are not zero, and the name in it of each cotangent or
    tangent."""

    contraction: Contraction
    names: dict[str, str]


@cache
def forward(problem: Problem) -> Contraction:
    """The output: the derivative of M by its cotangent."""
    return Contraction((problem.form,), (problem.form[0],))


@cache
def backward(problem: Problem) -> Contraction:
    """The gradients of the output by all of its factors."""
    return _all_gradients(forward(problem))


@cache
def double_backward(problem: Problem) -> Contraction:
    """The gradients of those by all that they depend on."""
    return _all_gradients(backward(problem))


def _all_gradients(contraction: Contraction) -> Contraction:
    return contraction.derivative(contraction.outputs, contraction.inputs).contraction
