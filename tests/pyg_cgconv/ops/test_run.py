"""Tensors whose numbers are not in memory as they are read: zeros without memory, and others' numbers with a sign."""

import pytest
import torch

from pyg_cgconv import TensorProductConv
from tests.orders import INPUTS, IRREPS, assert_orders, orders

LAYER = TensorProductConv(*IRREPS)
X, EDGE_INDEX, EDGE_ATTR, WEIGHT = INPUTS
FEATURES = {"x": X, "edge_attr": EDGE_ATTR, "weight": WEIGHT}


def negated(tensor):
    """The same numbers, as the negatives of others."""
    return torch._neg_view(-tensor)


def without_memory(tensor):
    return torch._efficientzerotensor(tensor.shape, dtype=tensor.dtype, device=tensor.device)


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("change", [negated, without_memory])
def test_inputs(name, change, device):
    given = {other: tensor.to(device) for other, tensor in FEATURES.items()}
    changed = change(given[name])
    plain = {**given, name: changed.resolve_neg() + 0.0 if change is negated else torch.zeros_like(given[name])}
    index = EDGE_INDEX.to(device)
    found = LAYER(edge_index=index, **{**given, name: changed})
    torch.testing.assert_close(found, LAYER(edge_index=index, **plain))


def test_the_imaginary_part_of_a_conjugate():
    conjugate = torch.complex(X, X).conj().imag
    assert conjugate.is_neg()
    torch.testing.assert_close(LAYER(conjugate, EDGE_INDEX, EDGE_ATTR, WEIGHT), -LAYER(*INPUTS))


def test_inputs_that_are_differentiated_twice():
    def function(x, edge_index, edge_attr, weight):
        return LAYER(*(torch._neg_view(t) for t in (x,)), edge_index, torch._neg_view(edge_attr), weight)

    assert_orders(orders(function, *INPUTS), orders(LAYER, *INPUTS))  # two signs cancel each other


@pytest.mark.parametrize("change", [negated, without_memory])
def test_gradients_of_both_orders(change, device):
    index, inputs = EDGE_INDEX.to(device), [t.to(device).requires_grad_() for t in FEATURES.values()]
    out = LAYER(inputs[0], index, *inputs[1:])

    def derivatives(change):
        generator = torch.Generator().manual_seed(2)

        def random(tensor):
            return change(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype).to(device))

        first = torch.autograd.grad(out, inputs, random(out), create_graph=True)
        second = torch.autograd.grad(first, inputs, [random(t) for t in first], retain_graph=True)
        return [*first, *second]

    wanted = derivatives((lambda t: t) if change is negated else torch.zeros_like)
    assert_orders(derivatives(change), wanted)
