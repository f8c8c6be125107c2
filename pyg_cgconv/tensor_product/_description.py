"""What a problem is called: a string that says all of it, so that a program saved in one process runs in another.

A description is JSON: irreps, paths with their normalisation, layout. `problem_of` makes of it what the kernel
generator reads; coefficients come from e3nn, in float64.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from functools import cache, partial
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

_ZERO = 1e-12
"""Coefficients below this are rounding noise: the smallest true one for l up to 8 is 1.3e-3."""


def convolution(product: o3.TensorProduct, layout: str) -> str:
    """The convolution with a tensor product whose paths all have mode "uvu"."""
    return _of_product("convolution", product, layout)


def rows(product: o3.TensorProduct, layout: str) -> str:
    """The tensor product itself, of rows, without a graph; its paths all have mode "uvu", or all "uuu"."""
    modes = {i.connection_mode for i in product.instructions}
    return _of_product("elementwise" if modes == {"uuu"} else "product", product, layout)


def _of_product(form: str, product: o3.TensorProduct, layout: str) -> str:
    paths = [[i.i_in1, i.i_in2, i.i_out, bool(i.has_weight), float(i.path_weight)] for i in product.instructions]
    return _written(
        form=form,
        irreps=[str(product.irreps_in1), str(product.irreps_in2), str(product.irreps_out)],
        paths=paths,
        layout=layout,
        shared_weights=bool(product.shared_weights),
    )


def outer(product: o3.TensorProduct, layout: str, on_graph: bool, summed: bool = True) -> str:
    """The product of each channel u of the first factor with each copy v of the second, without weights: for each path
    rows (v, component, u), one path after the other.

    Args:
        summed: over the edges of a node, where there is a graph.
    """
    paths = [[i.i_in1, i.i_in2, i.i_out, float(i.path_weight)] for i in product.instructions]
    irreps = [str(product.irreps_in1), str(product.irreps_in2), str(product.irreps_out)]
    return _written(form="outer", irreps=irreps, paths=paths, layout=layout, on_graph=on_graph, summed=summed)


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


def linear(irreps_in: o3.Irreps, irreps_out: o3.Irreps) -> str:
    """The linear map of :class:`pyg_cgconv.nn.Linear`, in ir_mul: an output sums over all inputs of its irrep, divided
    by the root of their channels."""
    paths = []
    for i_out, (_, ir) in enumerate(irreps_out):
        slots = [k for k, (_, ir_in) in enumerate(irreps_in) if ir_in == ir]
        paths += [[k, i_out, 1 / math.sqrt(sum(irreps_in[k].mul for k in slots))] for k in slots]
    return _written(form="linear", irreps=[str(irreps_in), str(irreps_out)], paths=paths)


def maps(paths: Iterable[tuple[int, int, int, int]], irreps_out: o3.Irreps, layout: str, on_graph: bool) -> str:
    """Linear maps of what :func:`outer` makes, with weights of each edge or row.

    Args:
        paths: the channels u and copies v of the factors, the channels w of the result, and its slot.
    """
    return _written(form="maps", paths=list(paths), irreps=str(irreps_out), layout=layout, on_graph=on_graph)


def _written(**content) -> str:
    return json.dumps(content, separators=(",", ":"))


@cache
def problem_of(description: str, dtype: str) -> Problem:
    """The problem of a description, for "float32" or "float64" numbers."""
    content = json.loads(description)
    forms: dict[str, Callable[..., Problem]] = {
        "convolution": partial(_product, target=Index.TARGET, source=Index.SOURCE),
        "product": partial(_product, target=Index.EDGE, source=Index.EDGE),
        "elementwise": _elementwise,
        "outer": _outer,
        "square": _square,
        "linear": _linear,
        "maps": _maps,
    }
    make, stored = forms[content.pop("form")], content.pop("stored", ())
    with without_modes():
        problem = make(**content).with_dtype(dtype)
    names = (operand.name for operand in problem.operands[1:])  # but not the result's
    return problem.stored(tuple(zip(names, stored, strict=False)))


def _product(
    irreps: list[str], paths: list, layout: str, shared_weights: bool, target: Index, source: Index
) -> Problem:
    """A product in which each row has its operands, or the ends of an edge have them."""
    irreps_in, irreps_edge, irreps_out = map(o3.Irreps, irreps)
    edge_blocks = _starts(multiplicity for multiplicity, _ in irreps_edge)
    weight_shapes, weight_blocks, result = [], 0, []
    for i_in, i_edge, i_out, has_weight, factor in paths:
        coefficients = _coefficients(irreps_in[i_in].ir, irreps_edge[i_edge].ir, irreps_out[i_out].ir, factor)
        copies = irreps_edge[i_edge].mul
        for copy in range(copies):
            weight = weight_blocks + copy if has_weight else None
            result.append(Path((i_out, i_in, edge_blocks[i_edge] + copy, weight), coefficients))
        if has_weight:
            weight_shapes.append((irreps_in[i_in].mul, copies))
            weight_blocks += copies
    operands = (
        Operand("g", channel_row(shape(irreps_out), layout), target),
        Operand("x", channel_row(shape(irreps_in), layout), source),
        Operand("y", copies_row(shape(irreps_edge), layout), Index.EDGE, Channels.NONE),
        Operand("w", weight_row(weight_shapes), Index.ONE if shared_weights else Index.EDGE),
    )
    return Problem(operands, ("g", "x", "y", "w"), tuple(result))


def _elementwise(irreps: list[str], paths: list, layout: str, shared_weights: bool) -> Problem:
    """A product of rows, channel by channel: both factors have channels."""
    left, right, out = map(o3.Irreps, irreps)
    weights: list[tuple[int, int]] = []
    result = []
    for i_left, i_right, i_out, has_weight, factor in paths:
        coefficients = _coefficients(left[i_left].ir, right[i_right].ir, out[i_out].ir, factor)
        result.append(Path((i_out, i_left, i_right, len(weights) if has_weight else None), coefficients))
        if has_weight:
            weights.append((left[i_left].mul, 1))
    operands = (
        Operand("g", channel_row(shape(out), layout), Index.EDGE),
        Operand("x", channel_row(shape(left), layout), Index.EDGE),
        Operand("y", channel_row(shape(right), layout), Index.EDGE),
        Operand("w", weight_row(weights), Index.ONE if shared_weights else Index.EDGE),
    )
    return Problem(operands, ("g", "x", "y", "w"), tuple(result))


def _outer(irreps: list[str], paths: list, layout: str, on_graph: bool, summed: bool) -> Problem:
    left, right, out = map(o3.Irreps, irreps)
    starts = _starts(multiplicity for multiplicity, _ in right)
    results: list[tuple[int, int]] = []
    products = []
    for i_left, i_right, i_out, factor in paths:
        coefficients = _coefficients(left[i_left].ir, right[i_right].ir, out[i_out].ir, factor)
        for copy in range(right[i_right].mul):
            products.append(Path((len(results), i_left, starts[i_right] + copy, None), coefficients))
            results.append((left[i_left].mul, out[i_out].ir.dim))
    target = Index.TARGET if on_graph and summed else Index.EDGE
    source = Index.SOURCE if on_graph else Index.EDGE
    operands = (
        Operand("g", channel_row(results, "ir_mul"), target),
        Operand("x", channel_row(shape(left), layout), source),
        Operand("y", copies_row(shape(right), layout), Index.EDGE, Channels.NONE),
    )
    return Problem(operands, ("g", "x", "y", ABSENT), tuple(products))


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


def _starts(counts: Iterable[int]) -> list[int]:
    return list(accumulate(counts, initial=0))


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
