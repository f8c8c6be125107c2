"""A small problem in float64, e3nn's messages for it, and a layer's output with its first and second derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from e3nn import o3
from torch import Tensor

from pyg_cgconv import TensorProductConv

IRREPS = ("2x0e+2x1o", "0e+1o", "0e+1o")
SOURCES, TARGETS, EDGES = 5, 4, 12

_LAYER = TensorProductConv(*IRREPS)
_GENERATOR = torch.Generator().manual_seed(0)


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=_GENERATOR, dtype=torch.float64)


INPUTS = (
    _random(SOURCES, _LAYER.irreps_in.dim),
    torch.stack([torch.randint(nodes, (EDGES,), generator=_GENERATOR) for nodes in (SOURCES, TARGETS)]),
    _random(EDGES, _LAYER.irreps_edge.dim),
    _random(EDGES, _LAYER.weight_numel),
)
"""x, edge_index, edge_attr and weight; no edge ends at node 4."""


def e3nn_product(layer: TensorProductConv, instructions: Sequence[tuple] | None = None, **options) -> o3.TensorProduct:
    """The tensor product of a layer's irreps, with exact coefficients."""
    paths = [i[:5] for i in layer.instructions] if instructions is None else instructions
    irreps = layer.irreps_in, layer.irreps_edge, layer.irreps_out
    torch.set_default_dtype(torch.float64)  # e3nn keeps its coefficients at the default dtype of this moment
    try:
        options = {"internal_weights": False, "shared_weights": layer.shared_weights, **options}
        return o3.TensorProduct(*irreps, paths, **options)
    finally:
        torch.set_default_dtype(torch.float32)


_PRODUCT = e3nn_product(_LAYER)


def expected_messages(x: Tensor, edge_index: Tensor | None, edge_attr: Tensor, weight: Tensor) -> Tensor:
    """e3nn's messages, of features that were gathered before if there is no ``edge_index``."""
    return _PRODUCT(x if edge_index is None else x[edge_index[0]], edge_attr, weight)


def convolved(product: o3.TensorProduct, x: Tensor, edge_index: Tensor, edge_attr: Tensor, weight) -> Tensor:
    """Messages of a product, summed at their targets; as many targets as sources."""
    messages = product(x[edge_index[0]], edge_attr, weight)
    return messages.new_zeros(x.shape[0], messages.shape[1]).index_add(0, edge_index[1], messages)


def orders(function: Callable, x: Tensor, edge_index: Tensor, edge_attr: Tensor, weight: Tensor) -> list[Tensor]:
    """The output, the gradients of its squares, and the gradients of theirs."""
    inputs = [t.detach().clone().requires_grad_() for t in (x, edge_attr, weight)]
    out = function(inputs[0], edge_index, *inputs[1:])
    first = torch.autograd.grad(out.square().sum(), inputs, create_graph=True)
    return [out, *first, *torch.autograd.grad(sum(g.square().sum() for g in first), inputs)]


def assert_orders(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    for result, expected in zip(found, wanted, strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-11, atol=1e-11)
