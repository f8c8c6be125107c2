"""cuEquivariance's polynomials, by one of its methods.

uniform_1d   its generated kernel, for one multiplicity; gathers and scatters
fused_tp     its older kernel, for products that mix channels, too
naive        plain PyTorch, the only one on a CPU

What is taken where nobody names a method is the fastest on an H100 (0.13.0, float32, 27 November 2026), in ms:

                                              uniform_1d          fused_tp            naive
mace-medium, 50,000 rows                      0.36 / 0.41 / 1.2   16 / 33 / 108       -
diffdock-l1, 50,000 edges                     -                   2.5 / 3.8 / 13      2.5 / 23 / 34
e3tools-transformer (shared), 100,000 edges   -                   5.2 / 7.9 / 29      0.9 / 1.8 / 4.1
linear-mace, 50,000 rows                      -                   107 / 74 / 287      0.8 / 2.0 / 4.4
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TypeAlias

import torch
from e3nn import o3

from .kind import Form, Missing, default_dtype


def channelwise(
    irreps_in: o3.Irreps, irreps_edge: o3.Irreps, irreps_out: o3.Irreps, form: Form, method: str | None
) -> tuple[Callable, str]:
    """The product of weights, rows and rows with mode "uvu", and the method that it goes by."""
    method = method or "uniform_1d"
    kept = list(dict.fromkeys(ir for _, ir in _irreps(irreps_out)))
    product = _cue().descriptors.channelwise_tensor_product(_irreps(irreps_in), _irreps(irreps_edge), kept)
    if method == "uniform_1d":
        product = _uniform(product, irreps_in)
    return _run(product.polynomial, form, method)


def fully_connected(
    irreps_in: o3.Irreps, irreps_edge: o3.Irreps, irreps_out: o3.Irreps, form: Form, method: str | None, shared: bool
) -> tuple[Callable, str]:
    """The product of weights, which all rows may share, rows and rows with mode "uvw"."""
    irreps = map(_irreps, (irreps_in, irreps_edge, irreps_out))
    product = _cue().descriptors.fully_connected_tensor_product(*irreps)
    return _run(product.polynomial, form, method or ("naive" if shared else "fused_tp"))


def linear(irreps_in: o3.Irreps, irreps_out: o3.Irreps, form: Form, method: str | None) -> tuple[Callable, str]:
    """The linear map by weights of rows."""
    product = _cue().descriptors.linear(_irreps(irreps_in), _irreps(irreps_out))
    return _run(product.polynomial, form, method or "naive")


def square(factors: o3.Irreps, paths: list[tuple], form: Form, method: str | None) -> tuple[Callable, str]:
    """The product of rows with themselves, channel by channel; products of equal irreps stand side by side.

    Args:
        factors: irreps of one multiplicity.
        paths: (slot, slot, irrep of their product, factor), those of equal irreps one after the other.
    """
    cue = _cue()
    product = cue.SegmentedTensorProduct.from_subscripts("iu,ju,ku+ijk")
    for multiplicity, ir in factors:
        product.add_segment(0, (ir.dim, multiplicity))
        product.add_segment(1, (ir.dim, multiplicity))
    for left, right, ir, factor in paths:
        coefficients = factor * o3.wigner_3j(factors[left].ir.l, factors[right].ir.l, ir.l, dtype=torch.float64)
        product.add_path(left, right, None, c=coefficients.numpy(), dims={"u": factors[0].mul})
    irreps = [ir for _, _, ir, _ in paths]
    components = [(irreps.index(ir), k, n) for n, ir in enumerate(irreps) for k in range(ir.dim)]
    order = sorted(range(len(components)), key=components.__getitem__)
    product = product.flatten_coefficient_modes().permute_segments(2, order)
    row, _, out = product.operands
    twice = cue.Operation((0, 0, 1))  # the input in two places, then the output
    polynomial = cue.SegmentedPolynomial([row], [out], [(twice, product)])
    return _run(polynomial.squeeze_modes(), form, method or "uniform_1d")


Term: TypeAlias = tuple[int, list[int], int, float]
"""Of a path with weights: the components of the features that are multiplied, that of the output, and a factor."""


def symmetric(
    irreps_in: o3.Irreps, irreps_out: o3.Irreps, degree: int, form: Form, method: str | None
) -> tuple[Callable, str, list[Term]]:
    """All products of up to so many features of a row, channel by channel, with weights; and what they consist of."""
    degrees = tuple(range(1, degree + 1))
    with default_dtype(torch.float64):  # so that rounding makes no terms that should be zero
        product = _cue().descriptors.symmetric_contraction(_irreps(irreps_in), _irreps(irreps_out), degrees)
    terms = [
        (path, features, out, factor)
        for _, each in product.polynomial.operations
        for (path, *features, out), factor in zip(
            each.indices.tolist(), each.stacked_coefficients.tolist(), strict=True
        )
    ]
    return *_run(product.polynomial, form, method or "uniform_1d"), terms


def _cue():
    return import_module("cuequivariance")


def _irreps(irreps: o3.Irreps):
    """The same irreps, with e3nn's coefficients and order."""
    group = import_module("cuequivariance.group_theory.experimental.e3nn").O3_e3nn
    return _cue().Irreps(group, str(irreps))


def _uniform(product, irreps: o3.Irreps):
    if len({multiplicity for multiplicity, _ in irreps}) > 1:
        raise Missing("uniform_1d of cuequivariance takes equal multiplicities only")
    return product.flatten_coefficient_modes().squeeze_modes()


def _run(polynomial, form: Form, method: str) -> tuple[Callable, str]:
    """The polynomial in PyTorch, and the method, which on a CPU is another than on a GPU.

    Raises:
        Missing: cuEquivariance would take another method in silence.
    """
    if form.device.type != "cuda":
        method = "naive"
    elif method != "naive":
        import_module("cuequivariance_ops_torch")
    cuet = import_module("cuequivariance_torch")
    run = cuet.SegmentedPolynomial(polynomial, method=method, math_dtype=form.dtype).to(form.device)
    if run.method != method:
        raise Missing(f"cuequivariance has no {method} here")
    return run, run.method
