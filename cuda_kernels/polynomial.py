"""The arithmetic that evaluates a form's derivatives for one path.

`evaluate_path` does it with whatever numbers it is given: LLVM values, NumPy arrays, or counters. Below, x and y are
the path's left and right factors, w is its weight and g the output's cotangent: M = sum of C[i, j, k] g[k] x[i] y[j] w.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping
from functools import cache

from .contraction import Contraction
from .problem import ABSENT, RIGHT, Path

# An element of an operand's row: (operand, block, component). Channels are implied: each number below is one channel's.
Element = tuple[str, int, int]


def matrices(path: Path, contraction: Contraction, read: Callable[[Element], object], arithmetic) -> dict:
    """T[y, i, k] = sum over j of C[i, j, k] y[j], the same for all channels if y has none: for machines where one set
    of T serves many channels. Absent entries are zero."""
    result = {}
    for y in sorted({term[RIGHT] for term in contraction.terms if _matrix_needed(term, contraction)}):
        table = _contracted(path, 1, lambda j, y=y: read((y, path.blocks[RIGHT], j)), arithmetic)
        result |= {(y, i, k): value for (i, k), value in table.items()}
    return result


def unit_scale(paths: Iterable[Path]) -> float:
    """The scale of an output block: coefficients divided by it are 1 or -1 where that saves the most
    multiplications."""
    saved: dict[float, int] = {}
    for path in paths:
        for row in _rows(path, 2).values():
            for magnitude in {abs(c) for _, c in row}:
                saved[magnitude] = saved.get(magnitude, 0) + 1
    return max(saved, key=saved.get)


def evaluate_path(
    path: Path,
    contraction: Contraction,
    read: Callable[[Element], object],
    sums: MutableMapping,
    arithmetic,
    matrix: dict | None = None,
) -> None:
    """Add one path's contribution to `sums[element]` for every element of the outputs.

    With R[i] = sum of x[i] w over the terms that share g and y, the output is one of three sums, whichever is cheapest:

        dg[k] = sum_i (sum_j C[i, j, k] y[j]) R[i] = sum_j (sum_i C[i, j, k] R[i]) y[j] = sum_ij C[i, j, k] (R[i] y[j])

    and with Q[i, j] = sum_k C[i, j, k] g[k] and S[i] = sum_j Q[i, j] y[j]:

        dy[j] = sum_i Q[i, j] R[i];   dx[i] = w S[i];   dw = sum_i x[i] S[i]

    M is the same with x and y exchanged, so the weights go to whichever has fewer components: read the above with x and
    y exchanged if that is y. Where `matrices` are given, S[i] = sum_k T[i, k] g[k] and dy[j] = sum_ik C[i, j, k] (g[k]
    R[i]) instead.
    """
    terms = contraction.terms
    if matrix is None and len({j for _, j, _, _ in path.coefficients}) < len({i for i, _, _, _ in path.coefficients}):
        path = _exchanged(path)
        terms = tuple((g, y, x, w) for g, x, y, w in terms)
    evaluation = _Matrices if matrix is not None else _Tables
    evaluation(path, terms, set(contraction.outputs), read, sums, arithmetic, matrix).run()


class _Evaluation:
    """The sums of `evaluate_path` for one path; how S and the gradient of y are found is left to the two strategies."""

    def __init__(self, path: Path, terms, outputs: set[str], read, sums, arithmetic, matrix: dict | None):
        self.path, self.outputs, self.read, self.sums = path, outputs, read, sums
        self.arithmetic, self.matrix = arithmetic, matrix
        self.out, self.left, self.right, self.weight = path.blocks
        self.products = self._products_by_g_and_y(terms)
        self._r: dict[tuple[str, str], dict[int, object]] = {}

    def run(self) -> None:
        for g in dict.fromkeys(g for g, _ in self.products):
            self.features(g, {y: products for (h, y), products in self.products.items() if h == g})

    def features(self, g: str, products: dict[str, list[tuple[str, str]]]) -> None:
        """The output g, and the gradients by what is multiplied with it."""
        inner = {y for y in products if any(x in self.outputs or self.has_weight_gradient(w) for x, w in products[y])}
        if g in self.outputs:
            self.output(g, [(y, self.r(g, y)) for y in products])
        if inner or self.outputs & set(products):
            self.prepare(g)
        for y in products:
            if y in self.outputs:
                self.gradient_of_y(g, y)
            if y in inner:
                self.gradients_of_x_and_w(self.s(g, y), products[y])

    def prepare(self, g: str) -> None:
        """Compute what the gradients by x, y and w share."""

    def gradients_of_x_and_w(self, s: dict[int, object], products: list[tuple[str, str]]) -> None:
        for x, w in products:
            for i, value in s.items():
                element = x, self.left, i
                if x in self.outputs and self.weight is None:
                    self.sums[element] = self.arithmetic.add(value, self.sums.get(element))
                elif x in self.outputs:
                    self.add(element, self.read((w, self.weight, 0)), value)
                if self.has_weight_gradient(w):
                    self.add((w, self.weight, 0), self.read(element), value)

    def r(self, g: str, y: str) -> dict[int, object]:
        if (g, y) not in self._r:
            indices = dict.fromkeys(i for i, _, _, _ in self.path.coefficients)
            self._r[g, y] = {i: self._sum_of_products(self.products[g, y], i) for i in indices}
        return self._r[g, y]

    def add(self, element: Element, a, b) -> None:
        self.sums[element] = self.arithmetic.fma(a, b, self.sums.get(element))

    def has_weight_gradient(self, w: str) -> bool:
        """Whether the gradient of these weights is asked for, and the path has weights."""
        return w in self.outputs and self.weight is not None

    def _sum_of_products(self, products: list[tuple[str, str]], i: int):
        total = None
        for x, w in products:
            value = self.read((x, self.left, i))
            if self.weight is None:
                total = self.arithmetic.add(value, total)
            else:
                total = self.arithmetic.fma(value, self.read((w, self.weight, 0)), total)
        return total

    def _products_by_g_and_y(self, terms) -> dict[tuple[str, str], list[tuple[str, str]]]:
        """The (x, w) pairs of each (g, y) pair. A path without weights has weight one, whose cotangents are zero."""
        groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for g, x, y, w in terms:
            if self.weight is not None or w in ("w", ABSENT):
                groups.setdefault((g, y), []).append((x, w))
        return groups


class _Matrices(_Evaluation):
    """With T[i, k] of each y at hand."""

    def output(self, g: str, factors: list) -> None:
        for y, r in factors:
            for i, k, t in self.entries(y):
                self.add((g, self.out, k), t, r[i])

    def gradient_of_y(self, g: str, y: str) -> None:
        outer: dict[tuple[int, int], object] = {}
        for i, j, k, c in self.path.coefficients:
            if (i, k) not in outer:
                outer[i, k] = self.arithmetic.mul(self.r(g, y)[i], self.read((g, self.out, k)))
            self.add((y, self.right, j), self.arithmetic.constant(c), outer[i, k])

    def s(self, g: str, y: str) -> dict[int, object]:
        s: dict[int, object] = {}
        for i, k, t in self.entries(y):
            s[i] = self.arithmetic.fma(t, self.read((g, self.out, k)), s.get(i))
        return s

    def entries(self, y: str) -> list[tuple[int, int, object]]:
        return [(i, k, t) for (of, i, k), t in self.matrix.items() if of == y]


class _Tables(_Evaluation):
    """With Q[i, j] of each g, and for the output the cheapest of the three sums."""

    def prepare(self, g: str) -> None:
        self.q = _contracted(self.path, 2, lambda k: self.read((g, self.out, k)), self.arithmetic)

    def output(self, g: str, factors: list) -> None:
        path = self.path
        costs = {axis: len(factors) * (_cost(path, axis) + len(_rows(path, axis))) for axis in (1, 0)}
        costs[2] = len(factors) * len(_rows(path, 2)) + len(path.coefficients)
        ways = {1: self.output_by_y, 0: self.output_by_x, 2: self.output_by_pairs}
        ways[min(costs, key=costs.__getitem__)](g, factors)

    def output_by_y(self, g: str, factors: list) -> None:
        for y, r in factors:
            table = _contracted(self.path, 1, lambda j, y=y: self.read((y, self.right, j)), self.arithmetic)
            for (i, k), t in table.items():
                self.add((g, self.out, k), t, r[i])

    def output_by_x(self, g: str, factors: list) -> None:
        for y, r in factors:
            for (j, k), p in _contracted(self.path, 0, r.__getitem__, self.arithmetic).items():
                self.add((g, self.out, k), p, self.read((y, self.right, j)))

    def output_by_pairs(self, g: str, factors: list) -> None:
        outer: dict[tuple[int, int], object] = {}
        for y, r in factors:
            for i, j in _rows(self.path, 2):
                outer[i, j] = self.arithmetic.fma(r[i], self.read((y, self.right, j)), outer.get((i, j)))
        for k in sorted({k for _, _, k, _ in self.path.coefficients}):
            terms = [(outer[i, j], c) for i, j, third, c in self.path.coefficients if third == k]
            element = g, self.out, k
            self.sums[element] = _weighted_sum(terms, self.sums.get(element), self.arithmetic)

    def gradient_of_y(self, g: str, y: str) -> None:
        for (i, j), value in self.q.items():
            self.add((y, self.right, j), value, self.r(g, y)[i])

    def s(self, g: str, y: str) -> dict[int, object]:
        s: dict[int, object] = {}
        for (i, j), value in self.q.items():
            s[i] = self.arithmetic.fma(value, self.read((y, self.right, j)), s.get(i))
        return s


def _exchanged(path: Path) -> Path:
    """The same path, its left and right factors exchanged."""
    out, left, right, weight = path.blocks
    return Path((out, right, left, weight), tuple((j, i, k, c) for i, j, k, c in path.coefficients))


@cache
def _rows(path: Path, axis: int) -> dict[tuple[int, int], tuple[tuple[int, float], ...]]:
    """The nonzero (index along `axis`, coefficient) pairs of each pair of the two other indices."""
    rows: dict[tuple[int, int], list] = {}
    for *indices, c in path.coefficients:
        along = indices.pop(axis)
        rows.setdefault(tuple(indices), []).append((along, c))
    return {key: tuple(row) for key, row in rows.items()}


def _signature(row) -> tuple[float, tuple]:
    """A row's sign, and what it shares with rows that differ in sign alone."""
    sign = 1.0 if row[0][1] > 0 else -1.0
    return sign, tuple((index, sign * c) for index, c in row)


def _cost(path: Path, axis: int) -> int:
    """Operations of `_contracted`: a term of a sum each, but the first with coefficient 1 is free."""
    different = {_signature(row)[1] for row in _rows(path, axis).values()}
    return sum(len(row) - any(abs(c) == 1 for _, c in row) for row in different)


def _contracted(path: Path, axis: int, value: Callable[[int], object], arithmetic) -> dict[tuple[int, int], object]:
    """The sum over one index of C[i, j, k] value(index), for each pair of the two others that is not always zero.

    Sums that agree up to sign are computed once.
    """
    known: dict[tuple, object] = {}
    result = {}
    for key, row in _rows(path, axis).items():
        sign, signature = _signature(row)
        if signature not in known:
            known[signature] = _weighted_sum([(value(index), c) for index, c in signature], None, arithmetic)
        result[key] = known[signature] if sign > 0 else arithmetic.negate(known[signature])
    return result


def _weighted_sum(terms: list, total, arithmetic):
    """total + sum of c * value over the (value, c) in `terms`; multiplications by 1 and -1 are left out."""
    for value, c in sorted(terms, key=lambda term: abs(term[1]) != 1):
        if abs(c) == 1:
            total = arithmetic.add(value if c > 0 else arithmetic.negate(value), total)
        else:
            total = arithmetic.fma(arithmetic.constant(c), value, total)
    return total


def _matrix_needed(term: tuple[str, ...], contraction: Contraction) -> bool:
    """Whether an output of this term is another factor than y."""
    return any(output in term[:RIGHT] + term[RIGHT + 1 :] for output in contraction.outputs)
