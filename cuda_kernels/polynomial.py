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
from dataclasses import dataclass
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


FORWARD = Contraction((tuple(KINDS),), ("g",))


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
    """T[y, i, k] = sum over j of C[i, j, k] y[j], the same for all channels; absent entries are zero.

    Entries that agree up to sign are computed once.
    """
    known: dict[tuple, object] = {}
    result = {}
    for y in sorted({term[2] for term in contraction.terms if _matrix_needed(term, contraction)}, key=_order):
        rows: dict[tuple[int, int], list] = {}
        for i, j, k, c in path.coefficients:
            rows.setdefault((i, k), []).append((j, c))
        for (i, k), row in rows.items():
            sign = 1.0 if row[0][1] > 0 else -1.0
            signature = (y, *((j, sign * c) for j, c in row))
            if signature not in known:
                total = None
                for j, c in signature[1:]:
                    total = arithmetic.fma(arithmetic.constant(c), read((y, path.y, j)), total)
                known[signature] = total
            result[y, i, k] = known[signature] if sign > 0 else arithmetic.negate(known[signature])
    return result


def evaluate_path(
    path: Path,
    contraction: Contraction,
    matrix: dict,
    read: Callable[[Element], object],
    sums: MutableMapping,
    arithmetic,
) -> None:
    """Add one path's contribution to `sums[element]` for every element of the outputs.

    With R[i] = sum of x[i] w over the terms that share g and y:
        dg[k] += sum_i T[i, k] R[i];   dy[j] += sum_ik C[i, j, k] g[k] R[i]
    and with S[i] = sum_k T[i, k] g[k]:
        dx[i] += w S[i];   dw += sum_i x[i] S[i]
    """

    def add(element: Element, a, b) -> None:
        sums[element] = arithmetic.fma(a, b, sums.get(element))

    indices_i = sorted({i for i, _, _, _ in path.coefficients})
    for (g, y), products in _products_by_g_and_y(path, contraction.terms).items():
        outputs = set(contraction.outputs)
        if g in outputs or y in outputs:
            r = {i: _sum_of_products(path, products, i, read, arithmetic) for i in indices_i}
        if g in outputs:
            for (matrix_y, i, k), t in matrix.items():
                if matrix_y == y:
                    add((g, path.out, k), t, r[i])
        if y in outputs:
            outer = {}
            for i, j, k, c in path.coefficients:
                if (i, k) not in outer:
                    outer[i, k] = arithmetic.mul(r[i], read((g, path.out, k)))
                add((y, path.y, j), arithmetic.constant(c), outer[i, k])
        if any(x in outputs or (w in outputs and path.weight is not None) for x, w in products):
            s = dict.fromkeys(indices_i)
            for (matrix_y, i, k), t in matrix.items():
                if matrix_y == y:
                    s[i] = arithmetic.fma(t, read((g, path.out, k)), s[i])
            for x, w in products:
                for i in indices_i:
                    if x in outputs and path.weight is None:
                        sums[x, path.x, i] = arithmetic.add(s[i], sums.get((x, path.x, i)))
                    elif x in outputs:
                        add((x, path.x, i), read((w, path.weight, 0)), s[i])
                    if w in outputs and path.weight is not None:
                        add((w, path.weight, 0), read((x, path.x, i)), s[i])


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
