"""Two ways to walk the monomials of a polynomial: products of features first, or sums over coefficients first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple

from .coefficients import AnyArithmetic, Number
from .contraction import Contraction
from .monomials import Entry, Feature, Features, Monomial
from .polynomial import Element
from .problem import COEFFICIENT, FEATURE, OUT, base


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
        scaled: the products times an element of the cotangent. Made when it is first needed.
        sums: for each element of an output what is multiplied with the products in it.
    """

    before: _Step[Number] | None
    feature: Feature | None
    rests: frozenset[_Rest]
    products: dict[_Rest, Number | None] = field(default_factory=dict)
    gradients: dict[_Rest, Number] = field(default_factory=dict)
    scaled: dict[tuple[_Rest, Feature], Number] = field(default_factory=dict)
    sums: dict[tuple[_Rest, Feature], Number] = field(default_factory=dict)

    def coming(self, rest: _Rest) -> list[_Rest]:
        """What of this step goes on, one feature later, like that."""
        pair, names = rest
        return sorted(earlier for earlier in self.rests if earlier[0] == pair and earlier[1][1:] == names)


class Walk(ABC, Generic[Number]):
    """Goes from monomial to monomial, by their features, and adds to sums what it finds."""

    def __init__(
        self,
        contraction: Contraction,
        read: Callable[[Element], Number],
        sums: MutableMapping[Element, Number],
        arithmetic: AnyArithmetic[Number],
    ):
        self.read, self.sums, self.arithmetic = read, sums, arithmetic
        self.outputs = frozenset(contraction.outputs)
        self.terms = [(_Pair(term[OUT], term[COEFFICIENT]), term[FEATURE:]) for term in contraction.terms]
        if len(set(self.terms)) < len(self.terms):
            raise ValueError(f"contraction: {contraction.spec} has a term twice")
        self.steps: list[_Step[Number]] = [_Step(None, None, frozenset(self.terms), dict.fromkeys(self.terms))]

    def to(self, features: Features) -> None:
        """Go to where these features have been multiplied."""
        here = [step.feature for step in self.steps[1:]]
        common = 0
        while common < min(len(here), len(features)) and here[common] == features[common]:
            common += 1
        while len(self.steps) > common + 1:
            step = self.steps.pop()
            assert step.before is not None, "the beginning is not left"
            self._leave(step, step.before)
        for feature in features[common:]:
            last = self.steps[-1]
            self.steps.append(_Step(last, feature, frozenset((pair, names[1:]) for pair, names in last.rests)))

    def monomial(self, monomial: Monomial) -> None:
        """The one that ends here. The operand in places still to come is one there, and its tangents are zero."""
        step = self.steps[-1]
        for rest in sorted(rest for rest in step.rests if all(name == base(name) for name in rest[1])):
            self._end(step, rest, monomial.entries)

    @abstractmethod
    def _end(self, step: _Step[Number], rest: _Rest, entries: tuple[Entry, ...]) -> None:
        """Terms of a monomial that ends at a step."""

    @abstractmethod
    def _leave(self, step: _Step[Number], before: _Step[Number]) -> None:
        """No further monomial has the step's features."""

    def _add(self, element: Element, product: Number | None, factor: Number) -> None:
        """Add product * factor to an output; None is one."""
        old = self.sums.get(element)
        if product is None:
            self.sums[element] = self.arithmetic.add(factor, old)
        else:
            self.sums[element] = self.arithmetic.fma(product, factor, old)


class ProductsFirst(Walk[Number]):
    """Each monomial is one product, for all components of the output; gradients by products become gradients by
    features."""

    def _end(self, step: _Step[Number], rest: _Rest, entries: tuple[Entry, ...]) -> None:
        pair = rest[0]
        for entry in entries:
            out, coefficient = (pair.out, *entry.out), (pair.coefficient, *entry.coefficient)
            if pair.out in self.outputs:
                self._add(out, self._product(step, rest), self.read(coefficient))
            if pair.coefficient in self.outputs:
                self._add(coefficient, self._product(step, rest), self.read(out))
        if self._has_gradients(rest, len(self.steps) - 1):
            total = None
            for entry in entries:
                factors = self.read((pair.out, *entry.out)), self.read((pair.coefficient, *entry.coefficient))
                total = self.arithmetic.fma(*factors, total)
            assert total is not None, "a monomial has coefficients"
            step.gradients[rest] = self.arithmetic.add(total, step.gradients.get(rest))

    def _leave(self, step: _Step[Number], before: _Step[Number]) -> None:
        """Gradients by the step's products become gradients by its feature and by the products before it."""
        depth = len(self.steps)
        for rest, gradient in step.gradients.items():
            for earlier in before.coming(rest):
                name = earlier[1][0]
                element = name, *step.feature  # type: ignore[misc]
                if name in self.outputs:
                    self._add(element, self._product(before, earlier), gradient)
                if depth > 1 and self._has_gradients(earlier, depth - 1):
                    old = before.gradients.get(earlier)
                    before.gradients[earlier] = self.arithmetic.fma(gradient, self.read(element), old)

    def _product(self, step: _Step[Number], rest: _Rest) -> Number | None:
        """The sum over the terms that go on like this of the products of the step's features; None is one."""
        if rest not in step.products:
            total = None
            before = step.before
            assert before is not None, "at the beginning all is known"
            for earlier in before.coming(rest):
                value = self.read((earlier[1][0], *step.feature))  # type: ignore[misc]
                product = self._product(before, earlier)
                total = (
                    self.arithmetic.add(value, total) if product is None else self.arithmetic.fma(product, value, total)
                )
            step.products[rest] = total
        return step.products[rest]

    def _has_gradients(self, rest: _Rest, depth: int) -> bool:
        """Whether an output is among the first `depth` features of terms that go on like this."""
        return any(
            pair == rest[0] and names[depth:] == rest[1] and self.outputs.intersection(names[:depth])
            for pair, names in self.terms
        )


class SumsFirst(Walk[Number]):
    """Horner's scheme: what is multiplied with equal first features is summed before, each component of the output by
    itself. Where sums are gradients by coefficients, the cotangent is multiplied with the first features instead.

    Features are no outputs here. Their order in a monomial may be any, because every place of a term is in it: a
    derivative of a symmetric product is symmetric.
    """

    def _end(self, step: _Step[Number], rest: _Rest, entries: tuple[Entry, ...]) -> None:
        pair = rest[0]
        for entry in entries:
            coefficient = pair.coefficient, *entry.coefficient
            if pair.out in self.outputs:
                old = step.sums.get((rest, entry.out))
                step.sums[rest, entry.out] = self.arithmetic.add(self.read(coefficient), old)
            if pair.coefficient in self.outputs:
                assert step.before is not None, "a monomial has features"
                for earlier in step.before.coming(rest):
                    feature = self.read((earlier[1][0], *step.feature))  # type: ignore[misc]
                    self._add(coefficient, feature, self._scaled(step.before, earlier, entry.out))

    def _leave(self, step: _Step[Number], before: _Step[Number]) -> None:
        """Sums of what is multiplied with this step's products become those of the step before."""
        for (rest, out), total in step.sums.items():
            for earlier in before.coming(rest):
                feature = self.read((earlier[1][0], *step.feature))  # type: ignore[misc]
                if before.before is None:
                    self._add((rest[0].out, *out), feature, total)
                else:
                    old = before.sums.get((earlier, out))
                    before.sums[earlier, out] = self.arithmetic.fma(feature, total, old)

    def _scaled(self, step: _Step[Number], rest: _Rest, out: Feature) -> Number:
        """The cotangent's element times the sum over the terms that go on like this of the products of features."""
        if step.before is None:
            return self.read((rest[0].out, *out))
        if (rest, out) not in step.scaled:
            total = None
            for earlier in step.before.coming(rest):
                feature = self.read((earlier[1][0], *step.feature))  # type: ignore[misc]
                total = self.arithmetic.fma(feature, self._scaled(step.before, earlier, out), total)
            assert total is not None, "terms that go on have come"
            step.scaled[rest, out] = total
        return step.scaled[rest, out]
