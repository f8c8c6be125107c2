"""The monomials of polynomials of features, and the orders in which they are walked.

out[k, u] = sum over monomials m of c[m, k, u] * the product of x[a, u] over the features a of m
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from .problem import Problem

Feature = tuple[int, int]
"""Block and component of a feature, of which each channel has one."""
Features = tuple[Feature, ...]


class Entry(NamedTuple):
    """A coefficient: what of the output it belongs to, and its place in a row of coefficients."""

    out: Feature
    coefficient: Feature


class Monomial(NamedTuple):
    """A product of features, and the coefficients that it has in the output's components."""

    features: Features
    entries: tuple[Entry, ...]


@cache
def monomials(problem: Problem) -> tuple[Monomial, ...]:
    """Those of a polynomial, in the order of a dictionary. Their coefficients lie in the same order, side by side."""
    ordered = _gathered(
        (tuple(zip(features, components, strict=True)), Entry((out, k), (coefficient, q)))
        for out, coefficient, features, indices in _terms(problem)
        for k, q, *components in indices
    )
    places = [entry.coefficient for monomial in ordered for entry in monomial.entries]
    if places != [(0, q) for q in range(len(places))]:
        raise ValueError("problem: the coefficients of a polynomial must have the order of its monomials")
    return ordered


@cache
def factored(problem: Problem) -> tuple[Monomial, ...]:
    """The same, one component of the output after the other, and the features of its monomials in such an order that
    few products of all features but the last are different: these are factored out."""
    by_out: dict[Feature, dict[Features, Entry]] = {}
    for monomial in monomials(problem):
        for entry in monomial.entries:
            by_out.setdefault(entry.out, {})[monomial.features] = entry
    return tuple(
        monomial
        for _, entries in sorted(by_out.items())
        for monomial in _gathered(zip(_orders(list(entries)), entries.values(), strict=True))
    )


def _terms(problem: Problem):
    """Output block, block of coefficients, blocks of features, and monomials of each path."""
    for path in problem.paths:
        out, coefficient, *blocks = path.blocks
        yield out, coefficient, [block for block in blocks if block is not None], path.monomials


def _gathered(found: Iterable[tuple[Features, Entry]]) -> tuple[Monomial, ...]:
    """Sorted by features; their coefficients by place."""
    entries: dict[Features, list[Entry]] = {}
    for features, entry in found:
        entries.setdefault(features, []).append(entry)
    return tuple(
        Monomial(features, tuple(sorted(each, key=lambda entry: entry.coefficient)))
        for features, each in sorted(entries.items())
    )


def _orders(products: list[Features]) -> list[Features]:
    """Each product's features in an order of its own: those that can have all features but the last in common do."""
    before: dict[Features, Features] = {}  # all features but the last
    needed = set(products)
    for degree in range(max(map(len, products)), 1, -1):
        begun = {product for product in needed if len(product) == degree - 1}
        found = _covered({product for product in needed if len(product) == degree}, begun)
        before |= found
        needed |= set(found.values())
    return [_ordered(product, before) for product in products]


def _covered(products: set[Features], begun: set[Features]) -> dict[Features, Features]:
    """For each product one that has a feature less: one of those in `begun`, or else of few others, the one that is in
    most products first."""
    parts = {product: {product[:i] + product[i + 1 :] for i in range(len(product))} for product in products}
    holders: dict[Features, set[Features]] = {}
    for product, each in parts.items():
        for part in each:
            holders.setdefault(part, set()).add(product)
    found: dict[Features, Features] = {}
    first = sorted(begun & holders.keys(), reverse=True)
    while holders:
        part = first.pop() if first else min(holders, key=lambda part: (-len(holders[part]), part))
        for product in holders.pop(part, set()):
            found[product] = part
            for other in parts[product] & holders.keys():
                holders[other].discard(product)
                if not holders[other]:
                    del holders[other]
    return found


def _ordered(product: Features, before: dict[Features, Features]) -> Features:
    if product not in before:
        return product
    (last,) = _difference(product, before[product])
    return (*_ordered(before[product], before), last)


def _difference(product: Features, part: Features) -> list[Feature]:
    rest = list(product)
    for feature in part:
        rest.remove(feature)
    return rest
