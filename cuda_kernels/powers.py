"""The arithmetic of polynomials of features, and of all their derivatives.

    out[k, u] = sum over monomials m of c[m, k, u] * the product of x[a, u] over the features a of m

Monomials are walked in the order of a dictionary: those with equal first features share the product of these. A
derivative is a sum of terms in which some places have other operands; at each step of the walk the terms that go on
alike are added up.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from functools import cache
from typing import Generic, NamedTuple

from .coefficients import AnyArithmetic, Number
from .contraction import Contraction
from .polynomial import Element
from .problem import COEFFICIENT, FEATURE, OUT, Problem, base

Feature = tuple[int, int]
"""Block and component of a feature, of which each channel has one."""


class Entry(NamedTuple):
    """A coefficient: what of the output it belongs to, and its place in a row of coefficients."""

    out: Feature
    coefficient: Feature


class Monomial(NamedTuple):
    """A product of features, and the coefficients that it has in the output's components."""

    features: tuple[Feature, ...]
    entries: tuple[Entry, ...]


@cache
def monomials(problem: Problem) -> tuple[Monomial, ...]:
    """Those of a polynomial, in the order of a dictionary. Their coefficients lie in the same order, side by side."""
    found: dict[tuple[Feature, ...], list[Entry]] = {}
    for path in problem.paths:
        out, coefficient, *blocks = path.blocks
        features = [block for block in blocks if block is not None]
        for k, q, *components in path.monomials:
            key = tuple(zip(features, components, strict=True))
            found.setdefault(key, []).append(Entry((out, k), (coefficient, q)))  # type: ignore[arg-type]
    ordered = [
        Monomial(features, tuple(sorted(entries, key=lambda entry: entry.coefficient)))
        for features, entries in sorted(found.items())
    ]
    places = [entry.coefficient for monomial in ordered for entry in monomial.entries]
    if places != [(0, q) for q in range(len(places))]:
        raise ValueError("problem: the coefficients of a polynomial must have the order of its monomials")
    return tuple(ordered)


def chunks(problem: Problem, coefficients: int) -> list[tuple[Monomial, ...]]:
    """The monomials in successive groups of so many coefficients at most; one monomial may have more."""
    result: list[list[Monomial]] = [[]]
    count = 0
    for monomial in monomials(problem):
        count += len(monomial.entries)
        if count > coefficients and result[-1]:
            result.append([])
            count = len(monomial.entries)
        result[-1].append(monomial)
    return [tuple(group) for group in result]


class _Pair(NamedTuple):
    """Cotangent and coefficients of a term."""

    out: str
    coefficient: str


_Rest = tuple[_Pair, tuple[str, ...]]
"""Terms that go on alike: cotangent, coefficients, and the operands in the places still to come."""


@dataclass(eq=False)
class _Step(Generic[Number]):
    """What is known after some features of a monomial.

    Attributes:
        before: after one feature less; None at the beginning.
        feature: the last one.
        products: the sum over terms of the products of these features; None is one. Made when it is first needed.
        gradients: of what the outputs are derivatives of, by each of the products.
    """

    before: _Step[Number] | None
    feature: Feature | None
    rests: frozenset[_Rest]
    products: dict[_Rest, Number | None] = field(default_factory=dict)
    gradients: dict[_Rest, Number] = field(default_factory=dict)


def evaluate(
    group: tuple[Monomial, ...],
    contraction: Contraction,
    read: Callable[[Element], Number],
    sums: MutableMapping[Element, Number],
    arithmetic: AnyArithmetic[Number],
) -> None:
    """Add the share of some monomials to `sums[element]` for every element of the outputs."""
    walk = _Walk(contraction, read, sums, arithmetic)
    for monomial in group:
        walk.to(monomial.features)
        walk.monomial(monomial)
    walk.to(())


class _Walk(Generic[Number]):
    def __init__(self, contraction: Contraction, read, sums, arithmetic: AnyArithmetic[Number]):
        self.read, self.sums, self.arithmetic = read, sums, arithmetic
        self.outputs = frozenset(contraction.outputs)
        self.terms = [(_Pair(term[OUT], term[COEFFICIENT]), term[FEATURE:]) for term in contraction.terms]
        if len(set(self.terms)) < len(self.terms):
            raise ValueError(f"contraction: {contraction.spec} has a term twice")
        self.steps: list[_Step[Number]] = [_Step(None, None, frozenset(self.terms), dict.fromkeys(self.terms))]

    def to(self, features: tuple[Feature, ...]) -> None:
        """Go to where these features have been multiplied."""
        here = [step.feature for step in self.steps[1:]]
        common = 0
        while common < min(len(here), len(features)) and here[common] == features[common]:
            common += 1
        while len(self.steps) > common + 1:
            self._leave(self.steps.pop())
        for feature in features[common:]:
            last = self.steps[-1]
            self.steps.append(_Step(last, feature, frozenset((pair, names[1:]) for pair, names in last.rests)))

    def monomial(self, monomial: Monomial) -> None:
        """The one that ends here. The operand in places still to come is one there, and its tangents are zero."""
        step = self.steps[-1]
        for rest in sorted(rest for rest in step.rests if all(name == base(name) for name in rest[1])):
            pair = rest[0]
            for entry in monomial.entries:
                out, coefficient = (pair.out, *entry.out), (pair.coefficient, *entry.coefficient)
                if pair.out in self.outputs:
                    self._add(out, self._product(step, rest), self.read(coefficient))
                if pair.coefficient in self.outputs:
                    self._add(coefficient, self._product(step, rest), self.read(out))
            if self._has_gradients(rest, len(monomial.features)):
                total = None
                for entry in monomial.entries:
                    factors = self.read((pair.out, *entry.out)), self.read((pair.coefficient, *entry.coefficient))
                    total = self.arithmetic.fma(*factors, total)
                assert total is not None, "a monomial has coefficients"
                step.gradients[rest] = self.arithmetic.add(total, step.gradients.get(rest))

    def _leave(self, step: _Step[Number]) -> None:
        """Gradients by the step's products become gradients by its feature and by the products before it."""
        before, depth = step.before, len(self.steps)
        assert before is not None, "the beginning is not left"
        for (pair, names), gradient in step.gradients.items():
            for rest in self._coming(before, (pair, names)):
                name = rest[1][0]
                element = name, *step.feature  # type: ignore[misc]
                if name in self.outputs:
                    self._add(element, self._product(before, rest), gradient)
                if depth > 1 and self._has_gradients(rest, depth - 1):
                    old = before.gradients.get(rest)
                    before.gradients[rest] = self.arithmetic.fma(gradient, self.read(element), old)

    def _product(self, step: _Step[Number], rest: _Rest) -> Number | None:
        """The sum over the terms that go on like this of the products of the step's features; None is one."""
        if rest not in step.products:
            total = None
            before = step.before
            assert before is not None, "at the beginning all is known"
            for earlier in self._coming(before, rest):
                value = self.read((earlier[1][0], *step.feature))  # type: ignore[misc]
                product = self._product(before, earlier)
                total = (
                    self.arithmetic.add(value, total) if product is None else self.arithmetic.fma(product, value, total)
                )
            step.products[rest] = total
        return step.products[rest]

    @staticmethod
    def _coming(before: _Step[Number], rest: _Rest) -> list[_Rest]:
        """What was still to come a feature before."""
        pair, names = rest
        return sorted(earlier for earlier in before.rests if earlier[0] == pair and earlier[1][1:] == names)

    def _has_gradients(self, rest: _Rest, depth: int) -> bool:
        """Whether an output is among the first `depth` features of terms that go on like this."""
        return any(
            pair == rest[0] and names[depth:] == rest[1] and self.outputs.intersection(names[:depth])
            for pair, names in self.terms
        )

    def _add(self, element: Element, product: Number | None, factor: Number) -> None:
        """Add product * factor to an output."""
        old = self.sums.get(element)
        if product is None:
            self.sums[element] = self.arithmetic.add(factor, old)
        else:
            self.sums[element] = self.arithmetic.fma(product, factor, old)
