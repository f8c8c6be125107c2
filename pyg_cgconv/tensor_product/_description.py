"""What a problem is called: a string that says all of it, so that a program saved in one process runs in another.

A description is JSON: irreps, paths with their normalisation, layout. `problem_of` makes of it what the kernel
generator reads; coefficients come from e3nn, in float64.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from functools import cache
from itertools import accumulate, groupby

import torch
from e3nn import o3

from cuda_kernels.problem import (
    ABSENT,
    Block,
    Channels,
    Index,
    Operand,
    Path,
    Problem,
    Row,
    channel_row,
    copies_row,
    pairs,
    weight_row,
)

from .._torch import without_modes
from ._layout import shape
from ._symmetric import polynomial_problem

_ZERO = 1e-12
"""Coefficients below this are rounding noise: the smallest true one for l up to 8 is 1.3e-3."""


class Factors(StrEnum):
    """Which factors of a product have channels, and how they meet."""

    LEFT = "left"  # the channels are x's; each meets every copy of y
    RIGHT = "right"  # the channels are y's; each meets every copy of x
    BOTH = "both"  # channel u of x meets channel u of y


def product(
    factors: Factors,
    irreps: Sequence[o3.Irreps],
    paths: Iterable[tuple[int, int, int, bool, float]],
    layouts: tuple[str, str],
    *,
    apart: bool,
    on_graph: bool,
    summed: bool = True,
    shared_weights: bool,
) -> str:
    """A product whose paths act on each channel alone. With `Factors.RIGHT` its operands are y, x and the weights.

    Args:
        irreps: of x, y and the result.
        paths: (slot of x, slot of y, slot of the result, whether it has weights, factor).
        layouts: of x and y, and of the result.
        apart: copy v is written to the v-th slot from the path's slot on; otherwise copies are summed.
        on_graph: x is of an edge's source, y of the edge; not with `Factors.RIGHT`.
        summed: results are sums over the edges of a target, where there is a graph.
        shared_weights: all edges or rows have the same weights.
    """
    written = [[i, j, k, bool(weighted), float(factor)] for i, j, k, weighted, factor in paths]
    if factors is Factors.RIGHT:
        irreps, written = _exchanged(irreps, written)
    return _written(
        form="product",
        factors=factors,
        irreps=[str(each) for each in irreps],
        paths=written,
        layouts=layouts,
        apart=apart,
        on_graph=on_graph,
        summed=summed,
        shared_weights=bool(shared_weights),
    )


def _exchanged(irreps: Sequence[o3.Irreps], paths: list[list]) -> tuple[Sequence[o3.Irreps], list[list]]:
    """The same product of y and x. Its coefficients have the other sign where the sum of the degrees is odd."""
    x, y, out = irreps
    return (y, x, out), [[j, i, k, w, c * (-1) ** (x[i].ir.l + y[j].ir.l + out[k].ir.l)] for i, j, k, w, c in paths]


def with_own_weights(description: str) -> str:
    """The same problem whose edges or rows have weights of their own instead of shared ones."""
    return _written(**{**json.loads(description), "shared_weights": False})


@cache
def stored(description: str, ways: tuple[str | None, ...]) -> str:
    """The same problem whose operands, in order, are stored in these ways: "bfloat16", "float16", or None for the
    dtype that is computed with."""
    return _written(**json.loads(description), stored=ways)


def square(product: o3.TensorProduct) -> str:
    """The product of features with themselves, both in ir_mul.

    Args:
        product: of two inputs of the same irreps and one multiplicity, each path of mode "uuu" without weights to a
            slot of its own, slots of equal irreps side by side: in the output these are one.
    """
    paths = [[i.i_in1, i.i_in2, i.i_out, float(i.path_weight)] for i in product.instructions]
    return _written(form="square", irreps=[str(product.irreps_in1), str(product.irreps_out)], paths=paths)


def linear(irreps_in: o3.Irreps, irreps_out: o3.Irreps, paths: Sequence[tuple[int, int, float]] | None = None) -> str:
    """A linear map of features in ir_mul.

    Args:
        paths: (slot of the input, slot of the output, factor) of each matrix of weights, in their order; by default
            those of :class:`pyg_cgconv.nn.Linear`: an output sums over all inputs of its irrep, divided by the root of
            their channels.
    """
    if paths is None:
        paths = []
        for i_out, (_, ir) in enumerate(irreps_out):
            slots = [k for k, (_, ir_in) in enumerate(irreps_in) if ir_in == ir]
            paths += [(k, i_out, 1 / math.sqrt(sum(irreps_in[k].mul for k in slots))) for k in slots]
    return _written(form="linear", irreps=[str(irreps_in), str(irreps_out)], paths=paths)


def maps(paths: Iterable[tuple[int, int, int, int]], irreps_out: o3.Irreps, layout: str, on_graph: bool) -> str:
    """Linear maps with weights of each edge or row, from rows in ir_mul: for each path and copy v, channels u of the
    irrep of its slot in the result.

    Args:
        paths: (channels u, copies v, channels w of the result, its slot).
        on_graph: results are sums over the edges of a target.
    """
    return _written(form="maps", paths=list(paths), irreps=str(irreps_out), layout=layout, on_graph=on_graph)


def polynomial(irreps_in: o3.Irreps, irreps_out: o3.Irreps, degree: int, layouts: tuple[str, str]) -> str:
    """Polynomials of features, channel by channel, with coefficients of each site's target, such as its element.

    Args:
        irreps_in, irreps_out: all of one multiplicity; of the input each irrep once.
        layouts: of features and result; "mul_joined" has the components of all irreps of a channel together.
    """
    irreps = {"irreps_in": str(irreps_in), "irreps_out": str(irreps_out)}
    return _written(form="polynomial", **irreps, degree=degree, layouts=layouts)


def _written(**content) -> str:
    return json.dumps(content, separators=(",", ":"))


@cache
def problem_of(description: str, dtype: str) -> Problem:
    """The problem of a description, for "float32" or "float64" numbers."""
    content = json.loads(description)
    forms: dict[str, Callable[..., Problem]] = {
        "product": _product,
        "square": _square,
        "linear": _linear,
        "maps": _maps,
        "polynomial": polynomial_problem,
    }
    make, stored = forms[content.pop("form")], content.pop("stored", ())
    with without_modes():
        problem = make(**content).with_dtype(dtype)
    names = (operand.name for operand in problem.operands[1:])  # but not the result's
    return problem.stored(tuple(zip(names, stored, strict=False)))


def _product(
    factors: str,
    irreps: list[str],
    paths: list,
    layouts: list[str],
    apart: bool,
    on_graph: bool,
    summed: bool,
    shared_weights: bool,
) -> Problem:
    left, right, out = map(o3.Irreps, irreps)
    copies = [1 if factors == Factors.BOTH else multiplicity for multiplicity, _ in right]
    starts = list(accumulate(copies, initial=0))
    weights: list[tuple[int, int]] = []
    weight_blocks, result = 0, []
    for i_left, i_right, i_out, has_weight, factor in paths:
        coefficients = _coefficients(left[i_left].ir, right[i_right].ir, out[i_out].ir, factor)
        channels, count = left[i_left].mul, copies[i_right]
        for copy in range(count):
            weight = weight_blocks + copy if has_weight else None
            blocks = i_out + copy if apart else i_out, i_left, starts[i_right] + copy, weight
            result.append(Path(blocks, coefficients))
        if has_weight:
            # e3nn's order of weights is u, v.
            weights += [(channels, 1)] * count if factors == Factors.RIGHT else [(channels, count)]
            weight_blocks += count
    target = Index.TARGET if on_graph and summed else Index.EDGE
    source = Index.SOURCE if on_graph else Index.EDGE
    row, channels_of_y = (channel_row, Channels.EACH) if factors == Factors.BOTH else (copies_row, Channels.NONE)
    operands = [
        Operand("g", channel_row(shape(out), layouts[1]), target),
        Operand("x", channel_row(shape(left), layouts[0]), source),
        Operand("y", row(shape(right), layouts[0]), Index.EDGE, channels_of_y),
    ]
    if weights:
        operands.append(Operand("w", weight_row(weights), Index.ONE if shared_weights else Index.EDGE))
    return Problem(tuple(operands), ("g", "x", "y", "w" if weights else ABSENT), tuple(result))


def _square(irreps: list[str], paths: list) -> Problem:
    """M(g, x, x): of two orders of a path's factors one is enough, because M is symmetric."""
    factors, slots = map(o3.Irreps, irreps)
    result = []
    for a, b, i_out, factor in paths:
        coefficients = _coefficients(factors[a].ir, factors[b].ir, slots[i_out].ir, factor)
        result.append(Path((i_out, a, b, None), _one_order(coefficients) if a == b else coefficients))
    operands = (
        Operand("g", _joined_row(slots, factors[0].mul), Index.EDGE),
        Operand("x", channel_row(shape(factors), "ir_mul"), Index.EDGE),
    )
    return Problem(operands, ("g", "x", "x", ABSENT), tuple(result))


def _linear(irreps: list[str], paths: list) -> Problem:
    irreps_in, irreps_out = map(o3.Irreps, irreps)
    result, weights, start = [], [], 0
    for n, (i_in, i_out, factor) in enumerate(paths):
        (channels_in, ir), channels_out = irreps_in[i_in], irreps_out[i_out].mul
        result.append(Path((i_out, i_in, None, n), tuple((m, 0, m, factor) for m in range(ir.dim))))
        weights.append(pairs(start, channels_in, channels_out))
        start += channels_in * channels_out
    operands = (
        Operand("g", channel_row(shape(irreps_out), "ir_mul"), Index.EDGE),
        Operand("x", channel_row(shape(irreps_in), "ir_mul"), Index.EDGE),
        Operand("w", Row(tuple(weights), start), Index.ONE, Channels.PAIRS),
    )
    return Problem(operands, ("g", "x", ABSENT, "w"), tuple(result))


def _maps(paths: list, irreps: str, layout: str, on_graph: bool) -> Problem:
    out = o3.Irreps(irreps)
    products: list[tuple[int, int]] = []
    weights, result, start = [], [], 0
    for u, v, w, i_out in paths:
        dim = out[i_out].ir.dim
        for copy in range(v):
            result.append(Path((i_out, len(products), None, len(products)), tuple((m, 0, m, 1.0) for m in range(dim))))
            products.append((u, dim))
            weights.append(pairs(start + copy * w, u, w, v * w))
        start += u * v * w
    operands = (
        Operand("g", channel_row(shape(out), layout), Index.TARGET if on_graph else Index.EDGE),
        Operand("x", channel_row(products, "ir_mul"), Index.EDGE),
        Operand("w", Row(tuple(weights), start), Index.EDGE, Channels.PAIRS),
    )
    return Problem(operands, ("g", "x", ABSENT, "w"), tuple(result))


def _joined_row(slots: o3.Irreps, channels: int) -> Row:
    """The row, in ir_mul, of slots of equal multiplicity, where those of equal irreps are one block of memory."""
    blocks, offset = [], 0
    for ir, group in groupby(ir for _, ir in slots):
        count = len(list(group))
        stride = count * channels
        blocks += [Block(offset + n * channels, channels, ir.dim, stride, 1) for n in range(count)]
        offset += stride * ir.dim
    return Row(tuple(blocks), offset)


Coefficients = tuple[tuple[int, int, int, float], ...]


def _one_order(coefficients: Coefficients) -> Coefficients:
    """The same sum of c x[i] x[j], each pair of components once."""
    return tuple((i, j, k, c if i == j else 2 * c) for i, j, k, c in coefficients if i <= j)


@cache
def _coefficients(left: o3.Irrep, right: o3.Irrep, out: o3.Irrep, factor: float) -> Coefficients:
    """(i, j, k, coefficient): Clebsch-Gordan coefficients times the path's normalisation, in float64. Values that agree
    up to rounding are made equal, so that they are found equal."""
    tensor = o3.wigner_3j(left.l, right.l, out.l, dtype=torch.float64, device="cpu") * factor
    magnitudes: list[float] = []
    result = []
    for i, j, k in (tensor.abs() > _ZERO).nonzero().tolist():
        value = tensor[i, j, k].item()
        magnitude = next((m for m in magnitudes if abs(abs(value) - m) < 1e-14 * m), None)
        if magnitude is None:
            magnitudes.append(magnitude := abs(value))
        result.append((i, j, k, magnitude if value > 0 else -magnitude))
    return tuple(result)
