"""The arithmetic of polynomials of features, and of all their derivatives.

A derivative is a sum of terms in which some places of the monomials have other operands. Monomials are walked in the
order of a dictionary, so that those with equal first features share what is known of these: products of the features,
or of each output the sum of what is multiplied with them. At each step the terms that go on alike are added up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from functools import cache

from .coefficients import AnyArithmetic, Number
from .contraction import Contraction
from .monomials import Entry, Monomial, factored, monomials
from .operations import Counter
from .polynomial import Element
from .powers_walks import ProductsFirst, SumsFirst, Walk
from .problem import FEATURE, Problem


@dataclass(frozen=True)
class Powers:
    """Monomials of a polynomial, in the order in which they are walked, and the way to do it."""

    monomials: tuple[Monomial, ...]
    way: type[Walk]

    @property
    def entries(self) -> Iterator[Entry]:
        """The coefficients."""
        return (entry for monomial in self.monomials for entry in monomial.entries)

    def evaluate(
        self,
        contraction: Contraction,
        read: Callable[[Element], Number],
        sums: MutableMapping[Element, Number],
        arithmetic: AnyArithmetic[Number],
    ) -> None:
        """Add the share of these monomials to `sums[element]` for every element of the outputs."""
        walk = self.way(contraction, read, sums, arithmetic)
        for monomial in self.monomials:
            walk.to(monomial.features)
            walk.monomial(monomial)
        walk.to(())

    def divided(self, coefficients: int) -> list[Powers]:
        """In successive groups of so many coefficients at most; one monomial may have more."""
        groups: list[list[Monomial]] = [[]]
        count = 0
        for monomial in self.monomials:
            count += len(monomial.entries)
            if count > coefficients and groups[-1]:
                groups.append([])
                count = len(monomial.entries)
            groups[-1].append(monomial)
        return [Powers(tuple(group), self.way) for group in groups]


@cache
def powers(problem: Problem, contraction: Contraction) -> Powers:
    """All monomials, in the way that takes fewer operations."""
    ways = [Powers(monomials(problem), ProductsFirst)]
    features = {operand for term in contraction.terms for operand in term[FEATURE:]}
    if features.isdisjoint(contraction.outputs):
        ways.append(Powers(factored(problem), SumsFirst))
    return min(ways, key=lambda way: _operations(way, contraction))


def multiply_adds(problem: Problem, contraction: Contraction) -> int:
    """Operations for a row of features: sums, products and fused multiply-adds, each once a channel."""
    channels = problem.multiplicity(problem.paths[0])
    return channels * _operations(powers(problem, contraction), contraction)


def _operations(way: Powers, contraction: Contraction) -> int:
    counter = Counter()
    way.evaluate(contraction, counter.value, {}, counter)
    return counter.operations
