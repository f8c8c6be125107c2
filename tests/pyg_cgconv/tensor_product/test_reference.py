"""The reference backend against e3nn, with and without torch_scatter."""

import types

import pytest
import torch
from e3nn import o3

from pyg_cgconv import TensorProductConv
from pyg_cgconv.tensor_product import _reference


def scatter_slowly(calls: list):
    """Stands in for torch_scatter: the same function, edge by edge."""

    def scatter(messages, index, dim, dim_size, reduce):
        calls.append(reduce)
        out = messages.new_zeros(dim_size, messages.shape[1])
        for row, node in zip(messages, index.tolist(), strict=True):
            out[node] += row
        counts = torch.bincount(index, minlength=dim_size).clamp(min=1)
        return out / counts[:, None] if reduce == "mean" else out

    return types.SimpleNamespace(scatter=scatter)


@pytest.mark.parametrize("aggr", ["add", "sum", "mean"])
@pytest.mark.parametrize("mode", ["uvu", "uvw"])
def test_with_and_without_torch_scatter(mode, aggr, monkeypatch):
    instructions = [(0, 1, 0, mode, True)]
    layer = TensorProductConv("3x0e", "0e+1o", "3x1o", instructions, aggr=aggr, backend="reference")
    product = o3.TensorProduct("3x0e", "0e+1o", "3x1o", instructions, shared_weights=False, internal_weights=False)
    x, edge_attr, weight = torch.randn(4, 3), torch.randn(9, 4), torch.randn(9, layer.weight_numel)
    edge_index = torch.randint(4, (2, 9))
    messages = product(x[edge_index[0]], edge_attr, weight)
    calls = []
    expected = scatter_slowly(calls).scatter(messages, edge_index[1], 0, 4, "mean" if aggr == "mean" else "sum")
    for module in (None, scatter_slowly(calls)):
        monkeypatch.setattr(_reference, "torch_scatter", module)
        torch.testing.assert_close(layer(x, edge_index, edge_attr, weight), expected)
    assert calls == ["mean" if aggr == "mean" else "sum"] * 2


def test_coefficients_are_exact_in_double_precision():
    """e3nn's own `.double()` would leave errors of 2e-8."""
    layer = TensorProductConv("2x1o", "2e", "2x3o", backend="reference")
    x, edge_attr = torch.randn(1, 6, dtype=torch.float64), torch.randn(1, 5, dtype=torch.float64)
    out = layer(x, torch.zeros(2, 1, dtype=torch.long), edge_attr, torch.ones(1, 2, dtype=torch.float64))
    coupling = o3.wigner_3j(1, 2, 3, dtype=torch.float64) * 7**0.5
    expected = torch.einsum("ijk,ui,j->uk", coupling, x.view(2, 3), edge_attr[0]).flatten()
    assert ((out[0] - expected).abs() < 1e-14).all()
