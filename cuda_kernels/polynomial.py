"""The arithmetic that evaluates a form's derivatives for one path.

`evaluate_path` does it with whatever numbers it is given: LLVM values, NumPy arrays, or counters. Below, x and y are
the path's left and right factors, w is its weight and g the output's cotangent: M = sum of C[i, j, k] g[k] x[i] y[j] w.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Generic

from .coefficients import AnyArithmetic, Number, contracted, cost, rows, weighted_sum
from .contraction import Contraction
from .problem import ABSENT, LEFT, OUT, RIGHT, WEIGHT, Path, base

# An element of an operand's row: (operand, block, component). Channels are implied: each number below is one channel's.
Element = tuple[str, int, int]
Matrix = dict[tuple[str, int, int], Number]  # T[y, i, k] of `matrices`


def matrices(
    path: Path, contraction: Contraction, read: Callable[[Element], Number], arithmetic: AnyArithmetic[Number]
) -> Matrix[Number]:
    """T[y, i, k] = sum over j of C[i, j, k] y[j], the same for all channels if y has none: for machines where one set
    of T serves many channels. Absent entries are zero."""
    result: Matrix[Number] = {}
    for y in sorted({term[RIGHT] for term in contraction.terms if _matrix_needed(term, contraction)}):
        table = contracted(path, 1, _component(read, y, path.block(RIGHT)), arithmetic)
        result |= {(y, i, k): value for (i, k), value in table.items()}
    return result


def evaluate_path(
    path: Path,
    contraction: Contraction,
    read: Callable[[Element], Number],
    sums: MutableMapping[Element, Number],
    arithmetic: AnyArithmetic[Number],
    matrix: Matrix[Number] | None = None,
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
    arguments = path, terms, set(contraction.outputs), read, sums, arithmetic
    evaluation = _Tables(*arguments) if matrix is None else _Matrices(*arguments, matrix)
    evaluation.run()


@dataclass(eq=False)
class _Evaluation(ABC, Generic[Number]):
    """The sums of `evaluate_path` for one path; how S and the gradient of y are found is left to the two strategies."""

    path: Path
    terms: tuple[tuple[str, ...], ...]
    outputs: set[str]
    read: Callable[[Element], Number]
    sums: MutableMapping[Element, Number]
    arithmetic: AnyArithmetic[Number]

    def __post_init__(self):
        self.out, self.left, self.right = self.path.block(OUT), self.path.block(LEFT), self.path.block(RIGHT)
        self.has_weight = self.path.blocks[WEIGHT] is not None
        self.products = self._products_by_g_and_y()
        self._r: dict[tuple[str, str], dict[int, Number]] = {}

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

    @abstractmethod
    def output(self, g: str, factors: list[tuple[str, dict[int, Number]]]) -> None:
        """Add to the output g, from each y and its R."""

    @abstractmethod
    def gradient_of_y(self, g: str, y: str) -> None:
        """Add to the gradient by y."""

    @abstractmethod
    def s(self, g: str, y: str) -> dict[int, Number]:
        """S[i]."""

    def gradients_of_x_and_w(self, s: dict[int, Number], products: list[tuple[str, str]]) -> None:
        for x, w in products:
            for i, value in s.items():
                element = x, self.left, i
                if x in self.outputs and not self.has_weight:
                    self.sums[element] = self.arithmetic.add(value, self.sums.get(element))
                elif x in self.outputs:
                    self.add(element, self.read(self.weight(w)), value)
                if self.has_weight_gradient(w):
                    self.add(self.weight(w), self.read(element), value)

    def r(self, g: str, y: str) -> dict[int, Number]:
        if (g, y) not in self._r:
            indices = dict.fromkeys(i for i, _, _, _ in self.path.coefficients)
            self._r[g, y] = {i: self._sum_of_products(self.products[g, y], i) for i in indices}
        return self._r[g, y]

    def add(self, element: Element, a: Number, b: Number) -> None:
        self.sums[element] = self.arithmetic.fma(a, b, self.sums.get(element))

    def has_weight_gradient(self, w: str) -> bool:
        """Whether the gradient of these weights is asked for, and the path has weights."""
        return w in self.outputs and self.has_weight

    def weight(self, w: str) -> Element:
        """The number of these weights that the path has."""
        return w, self.path.block(WEIGHT), 0

    def _sum_of_products(self, products: list[tuple[str, str]], i: int) -> Number:
        total: Number | None = None
        for x, w in products:
            value = self.read((x, self.left, i))
            if self.has_weight:
                total = self.arithmetic.fma(value, self.read(self.weight(w)), total)
            else:
                total = self.arithmetic.add(value, total)
        assert total is not None, "each (g, y) has products"
        return total

    def _products_by_g_and_y(self) -> dict[tuple[str, str], list[tuple[str, str]]]:
        """The (x, w) pairs of each (g, y) pair. A path without weights has weight one, whose cotangents are zero."""
        groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for g, x, y, w in self.terms:
            if self.has_weight or w in (ABSENT, base(w)):
                groups.setdefault((g, y), []).append((x, w))
        return groups


@dataclass(eq=False)
class _Matrices(_Evaluation[Number]):
    """With T[i, k] of each y at hand."""

    matrix: Matrix[Number]

    def output(self, g: str, factors: list[tuple[str, dict[int, Number]]]) -> None:
        for y, r in factors:
            for i, k, t in self.entries(y):
                self.add((g, self.out, k), t, r[i])

    def gradient_of_y(self, g: str, y: str) -> None:
        outer: dict[tuple[int, int], Number] = {}
        for i, j, k, c in self.path.coefficients:
            if (i, k) not in outer:
                outer[i, k] = self.arithmetic.mul(self.r(g, y)[i], self.read((g, self.out, k)))
            self.add((y, self.right, j), self.arithmetic.constant(c), outer[i, k])

    def s(self, g: str, y: str) -> dict[int, Number]:
        s: dict[int, Number] = {}
        for i, k, t in self.entries(y):
            s[i] = self.arithmetic.fma(t, self.read((g, self.out, k)), s.get(i))
        return s

    def entries(self, y: str) -> list[tuple[int, int, Number]]:
        return [(i, k, t) for (of, i, k), t in self.matrix.items() if of == y]


class _Tables(_Evaluation[Number]):
    """With Q[i, j] of each g, and for the output the cheapest of the three sums."""

    def prepare(self, g: str) -> None:
        self.q = contracted(self.path, 2, _component(self.read, g, self.out), self.arithmetic)

    def output(self, g: str, factors: list[tuple[str, dict[int, Number]]]) -> None:
        path = self.path
        costs = {axis: len(factors) * (cost(path, axis) + len(rows(path, axis))) for axis in (1, 0)}
        costs[2] = len(factors) * len(rows(path, 2)) + len(path.coefficients)
        ways = {1: self.output_by_y, 0: self.output_by_x, 2: self.output_by_pairs}
        ways[min(costs, key=costs.__getitem__)](g, factors)

    def output_by_y(self, g: str, factors: list[tuple[str, dict[int, Number]]]) -> None:
        for y, r in factors:
            table = contracted(self.path, 1, _component(self.read, y, self.right), self.arithmetic)
            for (i, k), t in table.items():
                self.add((g, self.out, k), t, r[i])

    def output_by_x(self, g: str, factors: list[tuple[str, dict[int, Number]]]) -> None:
        for y, r in factors:
            for (j, k), p in contracted(self.path, 0, r.__getitem__, self.arithmetic).items():
                self.add((g, self.out, k), p, self.read((y, self.right, j)))

    def output_by_pairs(self, g: str, factors: list[tuple[str, dict[int, Number]]]) -> None:
        outer: dict[tuple[int, int], Number] = {}
        for y, r in factors:
            for i, j in rows(self.path, 2):
                outer[i, j] = self.arithmetic.fma(r[i], self.read((y, self.right, j)), outer.get((i, j)))
        for k in sorted({k for _, _, k, _ in self.path.coefficients}):
            terms = [(outer[i, j], c) for i, j, third, c in self.path.coefficients if third == k]
            element = g, self.out, k
            self.sums[element] = weighted_sum(terms, self.sums.get(element), self.arithmetic)

    def gradient_of_y(self, g: str, y: str) -> None:
        for (i, j), value in self.q.items():
            self.add((y, self.right, j), value, self.r(g, y)[i])

    def s(self, g: str, y: str) -> dict[int, Number]:
        s: dict[int, Number] = {}
        for (i, j), value in self.q.items():
            s[i] = self.arithmetic.fma(value, self.read((y, self.right, j)), s.get(i))
        return s


def _component(read: Callable[[Element], Number], operand: str, block: int) -> Callable[[int], Number]:
    """Reads the components of a block."""
    return lambda i: read((operand, block, i))


def _exchanged(path: Path) -> Path:
    """The same path, its left and right factors exchanged."""
    out, left, right, weight = path.blocks
    return Path((out, right, left, weight), tuple((j, i, k, c) for i, j, k, c in path.coefficients))


def _matrix_needed(term: tuple[str, ...], contraction: Contraction) -> bool:
    """Whether an output of this term is another factor than y."""
    return any(output in term[:RIGHT] + term[RIGHT + 1 :] for output in contraction.outputs)
