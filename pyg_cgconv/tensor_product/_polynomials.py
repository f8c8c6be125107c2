"""Equivariant polynomials of features: which there are, and the monomials that they consist of.

A polynomial of degree n in features of irreps takes each of them from some slot. For every choice of slots,
Clebsch-Gordan coefficients couple them one after the other. Some of these are equal, because factors commute. So the
polynomials of one choice of slots are made orthogonal in the inner product that does not change when features are
rotated (Bombieri's, times n!):

    <p, q> = sum over monomials m of p[m] q[m] n_1! n_2! ...      with the powers n_1, n_2 ... of m's features
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import combinations_with_replacement, product
from math import factorial, prod

import numpy as np
import torch
from e3nn import o3

from .._torch import without_modes

Feature = tuple[int, int]
"""Slot and component."""
Monomial = tuple[Feature, ...]
"""A product of features, in order."""
Polynomial = dict[tuple[Monomial, int], float]
"""The coefficients of an equivariant polynomial: by monomial and component of the output."""

_ZERO = 1e-9
"""Coefficients below this are rounding noise. Of degree up to 4 and l up to 4 the smallest true one is above 1e-4."""


@cache
def basis(irreps: tuple[o3.Irrep, ...], out: o3.Irrep, degree: int) -> tuple[Polynomial, ...]:
    """Linearly independent polynomials that all others of this degree are sums of.

    Args:
        irreps: of the slots, each once.
    """
    with without_modes():
        result: list[Polynomial] = []
        for slots in combinations_with_replacement(range(len(irreps)), degree):
            result += _of_slots(irreps, slots, out)
        return tuple(result)


def entries(irreps: tuple[o3.Irrep, ...], outs: Iterable[o3.Irrep], degree: int) -> list[tuple[Monomial, int, int]]:
    """(monomial, slot of the output, its component) of the coefficients of polynomials up to a degree, without those
    that are always zero, in the order of the monomials."""
    found = {
        (monomial, slot, k)
        for slot, out in enumerate(outs)
        for n in range(1, degree + 1)
        for polynomial in basis(irreps, out, n)
        for monomial, k in polynomial
    }
    return sorted(found)


def _of_slots(irreps: tuple[o3.Irrep, ...], slots: tuple[int, ...], out: o3.Irrep) -> list[Polynomial]:
    shape = [irreps[slot].dim for slot in slots]
    indices = list(product(*map(range, shape)))
    found = [tuple(sorted(zip(slots, index, strict=True))) for index in indices]
    places = {monomial: n for n, monomial in enumerate(sorted(set(found)))}
    norms = np.array([prod(map(factorial, Counter(monomial).values())) for monomial in places], np.float64)
    independent: list[np.ndarray] = []
    for tensor in _couplings(tuple(irreps[slot] for slot in slots), out):
        values = np.zeros((len(places), out.dim))
        np.add.at(values, [places[monomial] for monomial in found], tensor.reshape(-1, out.dim))
        for _ in range(2):  # once more for what rounding has left
            for other in independent:
                values = values - other * _inner(values, other, norms) / out.dim
        if (size := _inner(values, values, norms)) > _ZERO:
            independent.append(values * np.sqrt(out.dim / size))
    return [_polynomial(list(places), values) for values in independent]


def _inner(a: np.ndarray, b: np.ndarray, norms: np.ndarray) -> float:
    return float(np.einsum("mk,mk,m->", a, b, norms))


def _polynomial(found: list[Monomial], values: np.ndarray) -> Polynomial:
    return {(found[m], int(k)): float(values[m, k]) for m, k in zip(*np.nonzero(np.abs(values) > _ZERO), strict=True)}


def _couplings(irreps: tuple[o3.Irrep, ...], out: o3.Irrep) -> list[np.ndarray]:
    """All ways to couple features of these irreps, from left to right: arrays (*dimensions, out.dim)."""
    first, *others = irreps
    coupled = [(first, np.eye(first.dim))]
    for n, ir in enumerate(others, 1):
        is_last = n == len(others)
        coupled = [
            (target, np.einsum("...i,ijk->...jk", tensor, _coefficients(source.l, ir.l, target.l)))
            for source, tensor in coupled
            for target in sorted(source * ir)
            if target == out or not is_last
        ]
    return [tensor for target, tensor in coupled if target == out]


@cache
def _coefficients(left: int, right: int, out: int) -> np.ndarray:
    return o3.wigner_3j(left, right, out, dtype=torch.float64, device="cpu").numpy()
