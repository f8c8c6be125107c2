"""What turns with its input, in each layout of features."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from e3nn import o3
from torch import Tensor, nn

from pyg_cgconv.tensor_product import shape, to_ir_mul, to_mul_ir


@contextmanager
def float64() -> Iterator[None]:
    """e3nn makes its constants and matrices in the default dtype: here float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def rotations() -> list[Tensor]:
    """A rotation, and another one with an inversion, (3, 3) in float64."""
    with float64():
        return [o3.rand_matrix(), -o3.rand_matrix()]


def turned(features: Tensor, irreps: o3.Irreps, rotation: Tensor, layout: str = "mul_ir") -> Tensor:
    """Features (n, irreps.dim) in float64, rotated."""
    with float64():
        matrix = irreps.D_from_matrix(rotation.cpu()).to(features.device)
    return in_layout(in_mul_ir(features, irreps, layout) @ matrix.mT, irreps, layout)


def in_layout(features: Tensor, irreps: o3.Irreps, layout: str) -> Tensor:
    """Features in mul_ir, the layout of e3nn, brought into this one."""
    return to_ir_mul(features, shape(irreps)) if layout == "ir_mul" else features


def in_mul_ir(features: Tensor, irreps: o3.Irreps, layout: str) -> Tensor:
    """Features in this layout, brought into mul_ir."""
    return to_mul_ir(features, shape(irreps)) if layout == "ir_mul" else features


def assert_equivariant(layer: nn.Module, irreps_in: o3.Irreps, irreps_out: o3.Irreps) -> Tensor:
    """A layer in float64 turns and inverts its features with its input, both in its layout; returns its output."""
    x = torch.randn(5, irreps_in.dim, dtype=torch.float64)
    out = layer(x)
    for rotation in rotations():
        expected = turned(out, irreps_out, rotation, layer.layout)
        torch.testing.assert_close(layer(turned(x, irreps_in, rotation, layer.layout)), expected)
    return out
