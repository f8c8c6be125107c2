"""Symmetric contractions as polynomials: their problem, and how a layer's weights become its coefficients.

The coefficients of a polynomial of features are combined from weights once for each element and channel, not for each
node:

    c[element, entry, u] = sum over paths p of U[p, entry] * weight[element, p, u]
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from e3nn import o3
from torch import Tensor

from cuda_kernels.problem import Block, Channels, Index, Operand, Path, Problem, Row, channel_row

from ._layout import shape
from ._polynomials import basis, entries

JOINED = "mul_joined"
"""A layout: (channels, components of all irreps), as MACE hands features to its contractions."""


def polynomial_problem(irreps_in: str, irreps_out: str, degree: int, layouts: Sequence[str]) -> Problem:
    """M(g, c, x, ..., x) with one coefficient for each entry of `polynomial_entries`."""
    features, out = o3.Irreps(irreps_in), o3.Irreps(irreps_out)
    channels = features[0].mul
    found = polynomial_entries(features, out, degree)
    paths: dict[tuple[int | None, ...], list[tuple[int, ...]]] = {}
    for q, (monomial, slot, k) in enumerate(found):
        missing = [None] * (degree - len(monomial))
        blocks = slot, 0, *(feature for feature, _ in monomial), *missing
        paths.setdefault(blocks, []).append((k, q, *(component for _, component in monomial)))
    row = Row((Block(0, channels, len(found), channels, 1),), len(found) * channels)
    operands = (
        Operand("g", _row(out, layouts[1]), Index.EDGE),
        Operand("c", row, Index.TARGET, Channels.EACH),
        Operand("x", _row(features, layouts[0]), Index.EDGE),
    )
    result = tuple(Path(blocks, (), tuple(monomials)) for blocks, monomials in paths.items())
    return Problem(operands, ("g", "c", *["x"] * degree), result)


def polynomial_entries(irreps_in: o3.Irreps, irreps_out: o3.Irreps, degree: int) -> list[tuple]:
    """(monomial, slot of the output, component) of each coefficient, in the order of a row of coefficients."""
    return entries(tuple(ir for _, ir in irreps_in), tuple(ir for _, ir in irreps_out), degree)


def coefficients_of_weights(irreps_in: o3.Irreps, irreps_out: o3.Irreps, degree: int) -> Tensor:
    """U (paths, entries) in float64: paths by slot of the output, then by degree, then in the order of `basis`."""
    found = {entry: n for n, entry in enumerate(polynomial_entries(irreps_in, irreps_out, degree))}
    features = tuple(ir for _, ir in irreps_in)
    rows = []
    for slot, (_, out) in enumerate(irreps_out):
        for n in range(1, degree + 1):
            for polynomial in basis(features, out, n):
                row = torch.zeros(len(found), dtype=torch.float64)
                for (monomial, k), value in polynomial.items():
                    row[found[monomial, slot, k]] = value
                rows.append(row)
    return torch.stack(rows)


def paths_of(irreps_in: o3.Irreps, irreps_out: o3.Irreps, degree: int) -> list[list[int]]:
    """For each slot of the output and each degree from 1 on the number of paths."""
    features = tuple(ir for _, ir in irreps_in)
    return [[len(basis(features, ir, n)) for n in range(1, degree + 1)] for _, ir in irreps_out]


def _row(irreps: o3.Irreps, layout: str) -> Row:
    if layout != JOINED:
        return channel_row(shape(irreps), layout)
    blocks, offset = [], 0
    for multiplicity, ir in irreps:
        blocks.append(Block(offset, multiplicity, ir.dim, 1, sum(ir.dim for _, ir in irreps)))
        offset += ir.dim
    return Row(tuple(blocks), irreps.dim)
