"""Convolutions of mode "uvw" with shared weights against e3nn's product a message."""

import pytest
import torch

from pyg_cgconv import TensorProductConv

IRREPS = "3x0e+2x1o", "2x0e+1o", "4x0e+3x1o+2x1e+5x3e"  # nothing leads to 3e
PATHS = [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, 2)]
INSTRUCTIONS = [(*path, "uvw", True, weight) for path, weight in zip(PATHS, (1.0, 0.3, 1.0, 2.0, 1.0), strict=True)]


def layers(device, **options):
    options |= {"shared_weights": True}
    made = TensorProductConv(*IRREPS, INSTRUCTIONS, backend=device.type, **options)
    return made, TensorProductConv(*IRREPS, INSTRUCTIONS, backend="reference", **options)


def results(layer, device, x, edge_index, edge_attr, weight, size):
    """The output, first derivatives, and derivatives of these."""
    leaves = [t.to(device).requires_grad_() for t in (x, edge_attr, weight)]
    out = layer((leaves[0], None), edge_index.to(device), *leaves[1:], size=size)
    first = torch.autograd.grad(out.square().sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
    return [out, *first, *second]


@pytest.mark.parametrize("options", [{}, {"layout": "ir_mul"}, {"aggr": "mean"}], ids=str)
def test_convolutions_are_e3nns_with_their_derivatives(device, options):
    layer, reference = layers(device, **options)
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    ends = [torch.randint(n, (30,), generator=generator) for n in (7, 5)]
    inputs = random(7, layer.irreps_in.dim), torch.stack(ends), random(30, layer.irreps_edge.dim)
    inputs += random(layer.weight_numel), (7, 5)
    found, expected = results(layer, device, *inputs), results(reference, torch.device("cpu"), *inputs)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-11, atol=1e-11)


def test_no_edges_give_zeros():
    layer, _ = layers(torch.device("cpu"))
    out = layer(
        torch.randn(4, 9), torch.empty(2, 0, dtype=torch.int64), torch.randn(0, 5), torch.randn(layer.weight_numel)
    )
    assert out.shape == (4, layer.irreps_out.dim)
    assert not out.any()
