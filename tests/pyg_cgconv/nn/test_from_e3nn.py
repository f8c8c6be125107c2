"""Layers made of e3nn's products."""

import pytest
import torch

from pyg_cgconv import TensorProductConv
from tests.drop_ins import assert_agree, default_dtype

from e3nn import o3  # isort: skip  (e3nn 0.4.4 does not load without pyg_cgconv)

PATHS = [(0, 0, 0, "uvu", True, 0.5), (0, 1, 1, "uvu", True), (1, 1, 0, "uvw", True), (1, 0, 1, "uvu", False, 3.0)]
IRREPS = "4x0e+3x1o", "2x0e+1o", "4x0e+4x1o+3x1o"


@pytest.fixture(autouse=True)
def float64():
    with default_dtype(torch.float64):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("shared_weights", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"irrep_normalization": "norm", "path_normalization": "path"},
        {"irrep_normalization": "none", "path_normalization": "none"},
        {"in1_var": [2.0, 0.5], "in2_var": [1.0, 3.0], "out_var": [0.1, 4.0, 2.0]},
    ],
    ids=str,
)
def test_it_is_the_product_summed_over_targets(options, shared_weights):
    paths = [(*path[:2], 2 if path[:2] == (1, 0) else path[2], *path[3:]) for path in PATHS]
    product = o3.TensorProduct(*IRREPS, paths, shared_weights=shared_weights, internal_weights=False, **options)
    layer = TensorProductConv.from_e3nn(product)
    torch.manual_seed(0)
    edges = torch.randint(6, (2, 20))
    x, y = torch.randn(6, product.irreps_in1.dim), torch.randn(20, product.irreps_in2.dim)
    weight = torch.randn(*([] if shared_weights else [20]), product.weight_numel)
    messages = product(x[edges[0]], y, weight)
    expected = messages.new_zeros(6, messages.shape[1]).index_add(0, edges[1], messages)
    assert_agree({"out": layer(x, edges, y, weight)}, {"out": expected}, 1e-12)


def test_options_are_those_of_the_layer():
    product = o3.TensorProduct("4x0e", "0e", "4x0e", [(0, 0, 0, "uvu", True)], shared_weights=False)
    assert TensorProductConv.from_e3nn(product, layout="ir_mul").layout == "ir_mul"


def test_weights_of_the_products_own_are_given():
    product = o3.FullyConnectedTensorProduct("4x0e", "2x0e", "3x0e")
    layer = TensorProductConv.from_e3nn(product)
    x, y, edges = torch.randn(3, 4), torch.randn(1, 2), torch.tensor([[2], [1]])
    assert_agree({"out": layer(x, edges, y, product.weight)[1:2]}, {"out": product(x[2:], y)}, 1e-12)


def test_anything_else_is_refused_by_name():
    with pytest.raises(TypeError, match=r"product: expected an e3nn\.o3\.TensorProduct, got str"):
        TensorProductConv.from_e3nn("4x0e")
