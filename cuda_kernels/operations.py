"""How much arithmetic a contraction is."""

from __future__ import annotations

from .contraction import Contraction
from .polynomial import Element, evaluate_path, matrices
from .problem import Path, Problem


def multiply_adds(problem: Problem, contraction: Contraction) -> int:
    """Operations for an edge: sums, products and fused multiply-adds, each once a channel.

    Of the two ways to evaluate a path the shorter one counts. Matrices of the edge features, which all channels share,
    do not.
    """
    return sum(
        problem.multiplicity(path) * min(_for_a_channel(path, contraction, shared) for shared in (False, True))
        for path in problem.paths
    )


def _for_a_channel(path: Path, contraction: Contraction, shared: bool) -> int:
    counter = Counter()
    matrix = matrices(path, contraction, counter.value, Counter()) if shared else None
    evaluate_path(path, contraction, counter.value, {}, counter, matrix)
    return counter.operations


class Counter:
    """Arithmetic that does nothing but number its results: equal ones are one, as they are to a compiler."""

    def __init__(self):
        self._numbers: dict[tuple, int] = {}

    @property
    def operations(self) -> int:
        return sum(name in ("mul", "add", "fma") for name, *_ in self._numbers)

    def value(self, element: Element) -> int:
        return self._number("value", element)

    def constant(self, value: float) -> int:
        return self._number("constant", value)

    def negate(self, a: int) -> int:
        return self._number("negate", a)

    def mul(self, a: int, b: int) -> int:
        return self._number("mul", a, b)

    def add(self, a: int, b: int | None) -> int:
        return a if b is None else self._number("add", a, b)

    def fma(self, a: int, b: int, c: int | None) -> int:
        return self._number("fma", a, b, c)

    def _number(self, *operation) -> int:
        return self._numbers.setdefault(operation, len(self._numbers))
