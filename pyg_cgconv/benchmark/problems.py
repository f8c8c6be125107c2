"""What is measured: problems by their names, most of them of published models."""

from __future__ import annotations

from . import maps, products, symmetric
from .graphs import Graph
from .kind import Kind

_NEQUIP = {
    "nequip-lips": ("32x0o+32x0e+32x1o+32x1e+32x2o+32x2e", "0e+1o+2e"),
    "nequip-aspirin": ("64x0o+64x0e+64x1o+64x1e", "0e+1o"),
    "nequip-toluene": ("64x0o+64x0e+64x1o+64x1e+64x2o+64x2e", "0e+1o+2e"),
    "nequip-benzene": ("64x0o+64x0e+64x1o+64x1e+64x2o+64x2e+64x3o+64x3e", "0e+1o+2e+3o"),
    "nequip-water": ("32x0o+32x0e+32x1o+32x1e", "0e+1o"),
}

PROBLEMS = {
    "mace-large": ("128x0e+128x1o+128x2e", "0e+1o+2e+3o", "128x0e+128x1o+128x2e+128x3o"),
    "mace-medium": ("128x0e+128x1o", "0e+1o+2e+3o", "128x0e+128x1o+128x2e"),
    **{name: (irreps, edge, irreps) for name, (irreps, edge) in _NEQUIP.items()},
    "sevennet-l3i5": ("128x0e+64x1e+32x2e+32x3e", "0e+1e+2e+3e", "0e+1e+2e+3e"),
    "nequix": ("128x0e+64x1o+32x2e+32x3o", "0e+1o+2e+3o", "0e+1o+2e+3o"),
}
"""Products of mode "uvu" whose edges or rows have weights of their own: node irreps, edge irreps, irreps kept in the
output."""

_DIFFDOCK = "10x1o+10x1e+48x0e+48x0o"
_TETRIS = "64x0e+24x1e+24x1o+16x2e+16x2o"

FULLY_CONNECTED = {
    "diffdock-l1": (_DIFFDOCK, "0e+1o", _DIFFDOCK),
    "diffdock-l2": (_DIFFDOCK, "0e+1o+2e", _DIFFDOCK),
    "e3tools-conv": ("64x0e+16x1o", "0e+1o", "80x0e+16x1o"),
}
"""Products of mode "uvw" whose edges or rows have weights of their own: node irreps, edge irreps, output irreps."""

SHARED = {
    "e3tools-transformer": ("64x0e+16x1o", "0e+1o", "64x0e+16x1o"),
    "tetris-poly-1": ("0e+1o+2e+3o", "0e+1o+2e+3o", _TETRIS),
    "tetris-poly-2": (_TETRIS, "0e+1o+2e", "0o+6x0e"),
}
"""The same with one row of weights for all."""

LINEAR = {
    "linear-mace": ("128x0e+128x1o+128x2e", "128x0e+128x1o+128x2e"),
    "linear-mace-messages": ("384x0e+640x1o+640x2e+512x3o", "128x0e+128x1o+128x2e+128x3o"),
    "linear-nequip": ("64x0o+64x0e+64x1o+64x1e", "64x0o+64x0e+64x1o+64x1e"),
}
"""Linear maps: input and output irreps. That of messages follows the convolution of mace-large."""

SQUARES = {
    "square-mace": ("128x0e+128x1o+128x2e", "0e+1o+2e"),
    "square-nequip": ("64x0o+64x0e+64x1o+64x1e", "0o+0e+1o+1e"),
}
"""Products of rows with themselves, channel by channel: their irreps, those that are kept."""

_MACE_FEATURES = "128x0e+128x1o+128x2e+128x3o"

SYMMETRIC = {
    "symmetric-mace": (_MACE_FEATURES, "128x0e+128x1o+128x2e", 3),
    "symmetric-mace-medium": (_MACE_FEATURES, "128x0e+128x1o", 3),
}
"""Symmetric contractions: input and output irreps, correlation."""

NAMES = (*PROBLEMS, *FULLY_CONNECTED, *SHARED, *LINEAR, *SQUARES, *SYMMETRIC)


def kind_of(name: str, graph: Graph) -> Kind:
    """The problem of this name on a graph; a product is a convolution where there are edges."""
    if name in LINEAR:
        return maps.LinearMap(*LINEAR[name], graph)
    if name in SQUARES:
        return maps.Square(*SQUARES[name], graph)
    if name in SYMMETRIC:
        return symmetric.SymmetricContraction(*SYMMETRIC[name], graph)
    if name in PROBLEMS:
        product = products.channelwise_product(*PROBLEMS[name])
    elif name in FULLY_CONNECTED:
        product = products.fully_connected_product(*FULLY_CONNECTED[name], shared_weights=False)
    else:
        product = products.fully_connected_product(*SHARED[name], shared_weights=True)
    return products.RowProduct(product, graph) if graph.edge_index is None else products.Convolution(product, graph)
