"""The multilinear polynomial of a convolution, its derivatives of any order, and the arithmetic that evaluates them.

Per edge, M(g, x, y, w) = sum over paths, channels and (i, j, k) of C[i, j, k] g[k] x[i] y[j] w  is linear in each
argument. Everything that is ever computed is a set of partial derivatives of a sum of such products:

    forward           g.x.y.w                            > g
    backward          g.x.y.w                            > x,y,w
    double backward   g.x1.y.w + g.x.y1.w + g.x.y.w1     > g,x,y,w

The derivative with respect to g is the output; x1, y1 and w1 are cotangents of the backward's outputs.
`Contraction` is such a set; `Contraction.derivative` gives the next one. `evaluate_path` does the arithmetic of one
path with whatever numbers it is given: LLVM values, NumPy arrays, or counters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass, replace
from functools import cache, cached_property

from .problem import KINDS, Path


@dataclass(frozen=True)
class Contraction:
    """The derivatives, with respect to the operands `outputs`, of the sum of M(*term) over `terms`.

    An operand's name is its kind (g, x, y or w), then digits for further operands of that kind.
    """

    terms: tuple[tuple[str, str, str, str], ...]
    outputs: tuple[str, ...]

    def __hash__(self):
        return hash(self.spec)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """The operands whose values the outputs depend on."""
        needed = {
            operand
            for term in self.terms
            for output in self.outputs
            if output in term
            for operand in term
            if operand != output
        }
        return tuple(sorted(needed, key=_order))

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
        outputs = tuple(sorted(outputs, key=_order))
        return Contraction(tuple(term for term in self.terms if set(term) & set(outputs)), outputs)

    @cache  # noqa: B019  (a handful of derivatives are ever taken)
    def derivative(self, cotangents: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[Contraction, dict[str, str]]:
        """The gradient of <cotangent, output>, summed over the outputs in `cotangents`, with respect to the inputs in
        `wanted`.

        Returns the contraction, whose outputs are those of `wanted` that have a gradient at all, and the operand name
        of each output's cotangent.
        """
        names = {output: _fresh(output, self.inputs) for output in cotangents}
        terms = tuple(
            tuple(names[output] if operand == output else operand for operand in term)
            for term in self.terms
            for output in names
            if output in term
        )
        occurring = {operand for term in terms for operand in term}
        return Contraction(terms, ()).restricted(set(wanted) & occurring), names


def kind(operand: str) -> str:
    return operand[0]


def _order(operand: str) -> tuple[int, int]:
    return KINDS.index(operand[0]), int(operand[1:] or 0)


def _fresh(output: str, taken: tuple[str, ...]) -> str:
    """The name of an output's cotangent: the output's own where its value is not an input, else the first free number.

    "w" alone stays the weights themselves, which are one (and not zero, as a cotangent's) on a path without weights.
    """
    number = 1 if output == "w" else 0
    while (name := output[0] + (str(number) if number else "")) in taken:
        number += 1
    return name


# An element of an operand's row: (operand, block, component). Channels are implied: each number below is one channel's.
Element = tuple[str, int, int]


def matrices(path: Path, contraction: Contraction, read: Callable[[Element], object], arithmetic) -> dict:
    """T[y, i, k] = sum over j of C[i, j, k] y[j], the same for all channels: for machines where one set of T serves
    many channels. Absent entries are zero."""
    result = {}
    for y in sorted({term[2] for term in contraction.terms if _matrix_needed(term, contraction)}, key=_order):
        table = _contracted(path, 1, lambda j, y=y: read((y, path.y, j)), arithmetic)
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
    outputs, terms = set(contraction.outputs), contraction.terms
    if matrix is None and len({j for _, j, _, _ in path.coefficients}) < len({i for i, _, _, _ in path.coefficients}):
        path = replace(path, x=path.y, y=path.x, coefficients=tuple((j, i, k, c) for i, j, k, c in path.coefficients))
        terms = tuple((g, y, x, w) for g, x, y, w in terms)
    groups = _products_by_g_and_y(path, terms)

    def add(element: Element, a, b) -> None:
        sums[element] = arithmetic.fma(a, b, sums.get(element))

    @cache
    def r(g: str, y: str) -> dict[int, object]:
        return {i: _sum_of_products(path, groups[g, y], i, read, arithmetic) for i, _, _, _ in path.coefficients}

    for g in dict.fromkeys(g for g, _ in groups):
        products = {y: groups[g, y] for h, y in groups if h == g}
        inner = {y for y in products if any(x in outputs or _weighted(path, w, outputs) for x, w in products[y])}
        if g in outputs:
            factors = [(y, r(g, y)) for y in products]
            _add_output(path, g, factors, read, sums, arithmetic, matrix)
        if matrix is None and (inner or outputs & set(products)):
            q = _contracted(path, 2, lambda k, g=g: read((g, path.out, k)), arithmetic)
        for y in products:
            if y in outputs and matrix is None:
                for (i, j), value in q.items():
                    add((y, path.y, j), value, r(g, y)[i])
            elif y in outputs:
                outer: dict[tuple[int, int], object] = {}
                for i, j, k, c in path.coefficients:
                    if (i, k) not in outer:
                        outer[i, k] = arithmetic.mul(r(g, y)[i], read((g, path.out, k)))
                    add((y, path.y, j), arithmetic.constant(c), outer[i, k])
            if y not in inner:
                continue
            s: dict[int, object] = {}
            if matrix is None:
                for (i, j), value in q.items():
                    s[i] = arithmetic.fma(value, read((y, path.y, j)), s.get(i))
            else:
                for (matrix_y, i, k), t in matrix.items():
                    if matrix_y == y:
                        s[i] = arithmetic.fma(t, read((g, path.out, k)), s.get(i))
            for x, w in products[y]:
                for i in s:
                    if x in outputs and path.weight is None:
                        sums[x, path.x, i] = arithmetic.add(s[i], sums.get((x, path.x, i)))
                    elif x in outputs:
                        add((x, path.x, i), read((w, path.weight, 0)), s[i])
                    if _weighted(path, w, outputs):
                        add((w, path.weight, 0), read((x, path.x, i)), s[i])


def _add_output(path: Path, g: str, factors: list, read, sums, arithmetic, matrix: dict | None) -> None:
    """dg[k] += sum over (i, j) of C[i, j, k] R[i] y[j], for each (y, R) in `factors`."""

    def add(k: int, a, b) -> None:
        sums[g, path.out, k] = arithmetic.fma(a, b, sums.get((g, path.out, k)))

    if matrix is not None:
        for y, r in factors:
            for (matrix_y, i, k), t in matrix.items():
                if matrix_y == y:
                    add(k, t, r[i])
        return
    costs = {axis: len(factors) * (_cost(path, axis) + len(_rows(path, axis))) for axis in (1, 0)}
    costs[2] = len(factors) * len(_rows(path, 2)) + len(path.coefficients)
    cheapest = min(costs, key=costs.get)
    if cheapest == 1:
        for y, r in factors:
            table = _contracted(path, 1, lambda j, y=y: read((y, path.y, j)), arithmetic)
            for (i, k), t in table.items():
                add(k, t, r[i])
    elif cheapest == 0:
        for y, r in factors:
            for (j, k), p in _contracted(path, 0, r.__getitem__, arithmetic).items():
                add(k, p, read((y, path.y, j)))
    else:
        outer: dict[tuple[int, int], object] = {}
        for y, r in factors:
            for i, j in _rows(path, 2):
                outer[i, j] = arithmetic.fma(r[i], read((y, path.y, j)), outer.get((i, j)))
        for k in sorted({k for _, _, k, _ in path.coefficients}):
            terms = [(outer[i, j], c) for i, j, third, c in path.coefficients if third == k]
            sums[g, path.out, k] = _weighted_sum(terms, sums.get((g, path.out, k)), arithmetic)


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


def _weighted(path: Path, w: str, outputs: set[str]) -> bool:
    """Whether the gradient of these weights is asked for, and the path has weights."""
    return w in outputs and path.weight is not None


def _matrix_needed(term: tuple[str, ...], contraction: Contraction) -> bool:
    return any(output in term and kind(output) != "y" for output in contraction.outputs)


def _products_by_g_and_y(path: Path, terms) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """The (x, w) pairs of each (g, y) pair. A path without weights has weight one, whose cotangents are zero."""
    groups: dict[tuple[str, str], list] = {}
    for g, x, y, w in terms:
        if path.weight is not None or w == "w":
            groups.setdefault((g, y), []).append((x, w))
    return groups


def _sum_of_products(path: Path, products, i: int, read, arithmetic):
    total = None
    for x, w in products:
        value = read((x, path.x, i))
        if path.weight is None:
            total = arithmetic.add(value, total)
        else:
            total = arithmetic.fma(value, read((w, path.weight, 0)), total)
    return total


FORWARD = Contraction((tuple(KINDS),), ("g",))
BACKWARD, _ = FORWARD.derivative(("g",), ("x", "y", "w"))
DOUBLE_BACKWARD, _ = BACKWARD.derivative(("x", "y", "w"), ("g", "x", "y", "w"))
