"""Sums over a path's coefficients C[i, j, k], in as few operations as there may be."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Protocol, TypeVar

from .problem import Path

Number = TypeVar("Number")


class AnyArithmetic(Protocol[Number]):
    """What `evaluate_path` does with numbers; None is zero."""

    def constant(self, value: float, /) -> Number: ...

    def negate(self, a: Number, /) -> Number: ...

    def mul(self, a: Number, b: Number, /) -> Number: ...

    def add(self, a: Number, b: Number | None, /) -> Number: ...

    def fma(self, a: Number, b: Number, c: Number | None, /) -> Number: ...


def unit_scale(paths: Iterable[Path]) -> float:
    """The scale of an output block: coefficients divided by it are 1 or -1 where that saves the most
    multiplications."""
    saved: dict[float, int] = {}
    for path in paths:
        for row in rows(path, 2).values():
            for magnitude in {abs(c) for _, c in row}:
                saved[magnitude] = saved.get(magnitude, 0) + 1
    return max(saved, key=saved.__getitem__)


@cache
def rows(path: Path, axis: int) -> dict[tuple[int, int], tuple[tuple[int, float], ...]]:
    """The nonzero (index along `axis`, coefficient) pairs of each pair of the two other indices."""
    rows: dict[tuple[int, int], list[tuple[int, float]]] = {}
    for *indices, c in path.coefficients:
        along = indices.pop(axis)
        first, second = indices
        rows.setdefault((first, second), []).append((along, c))
    return {key: tuple(row) for key, row in rows.items()}


def _signature(row: tuple[tuple[int, float], ...]) -> tuple[float, tuple]:
    """A row's sign, and what it shares with rows that differ in sign alone."""
    sign = 1.0 if row[0][1] > 0 else -1.0
    return sign, tuple((index, sign * c) for index, c in row)


def cost(path: Path, axis: int) -> int:
    """Operations of `_contracted`: a term of a sum each, but the first with coefficient 1 is free."""
    different = {_signature(row)[1] for row in rows(path, axis).values()}
    return sum(len(row) - any(abs(c) == 1 for _, c in row) for row in different)


def contracted(
    path: Path, axis: int, value: Callable[[int], Number], arithmetic: AnyArithmetic[Number]
) -> dict[tuple[int, int], Number]:
    """The sum over one index of C[i, j, k] value(index), for each pair of the two others that is not always zero.

    Sums that agree up to sign are computed once.
    """
    known: dict[tuple, Number] = {}
    result = {}
    for key, row in rows(path, axis).items():
        sign, signature = _signature(row)
        if signature not in known:
            known[signature] = weighted_sum([(value(index), c) for index, c in signature], None, arithmetic)
        result[key] = known[signature] if sign > 0 else arithmetic.negate(known[signature])
    return result


def weighted_sum(terms: list[tuple[Number, float]], total: Number | None, arithmetic: AnyArithmetic[Number]) -> Number:
    """total + sum of c * value over the (value, c) in `terms`; multiplications by 1 and -1 are left out."""
    for value, c in sorted(terms, key=lambda term: abs(term[1]) != 1):
        if abs(c) == 1:
            total = arithmetic.add(value if c > 0 else arithmetic.negate(value), total)
        else:
            total = arithmetic.fma(arithmetic.constant(c), value, total)
    assert total is not None, "a sum has terms"
    return total
