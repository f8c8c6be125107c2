"""Lists of instructions: what e3nn makes of them, and what is wrong with others. Values are e3nn's in float64."""

import pytest
import torch

from pyg_cgconv import TensorProductConv
from tests.orders import EDGES, INPUTS, SOURCES, assert_orders, convolved, e3nn_product, orders

X, EDGE_INDEX, EDGE_ATTR, _ = INPUTS
IRREPS = ("2x0e+2x1o", "0e+1o", "2x0e+2x1o")
SHARING = [(0, 0, 0, "uvu", True, 0.5), (1, 1, 0, "uvu", True), (0, 1, 1, "uvu", True, 2.0), (1, 0, 1, "uvu", False)]
WITHOUT_WEIGHTS = [(0, 0, 0, "uvu", False), (0, 1, 1, "uvu", False)]
BACKENDS = ["auto", pytest.param("reference", marks=pytest.mark.slow)]


def weights(layer):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(EDGES, layer.weight_numel, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("path", [None, "element", "path", "none"])
@pytest.mark.parametrize("irrep", [None, "component", "norm", "none"])
def test_normalisation_is_e3nns(irrep, path, backend):
    options = {"irrep_normalization": irrep, "path_normalization": path}
    layer = TensorProductConv(*IRREPS, SHARING, backend=backend, **options)
    product, weight = e3nn_product(layer, SHARING, **options), weights(layer)
    wanted = convolved(product, X, EDGE_INDEX, EDGE_ATTR, weight)
    torch.testing.assert_close(layer(X, EDGE_INDEX, EDGE_ATTR, weight), wanted, rtol=1e-11, atol=1e-12)
    for given in (product.instructions, layer.instructions, [list(i) for i in layer.instructions]):
        again = TensorProductConv(*IRREPS, given, backend=backend)
        assert [tuple(i) for i in again.instructions] == [tuple(i) for i in product.instructions]
        assert torch.equal(again(X, EDGE_INDEX, EDGE_ATTR, weight), layer(X, EDGE_INDEX, EDGE_ATTR, weight))


def test_normalisation_without_instructions():
    options = {"irrep_normalization": "norm", "path_normalization": "path"}
    layer = TensorProductConv(*IRREPS, **options)
    wanted = convolved(e3nn_product(layer, **options), X, EDGE_INDEX, EDGE_ATTR, weights(layer))
    torch.testing.assert_close(layer(X, EDGE_INDEX, EDGE_ATTR, weights(layer)), wanted)


@pytest.mark.parametrize("name", ["irrep_normalization", "path_normalization"])
def test_normalised_instructions_are_not_normalised_again(name):
    given = TensorProductConv(*IRREPS, SHARING).instructions
    TensorProductConv(*IRREPS, given, **{name: "none"})
    for choice in {"irrep_normalization": ("component", "norm"), "path_normalization": ("element", "path")}[name]:
        with pytest.raises(ValueError, match=f"^{name}: '{choice}', but instructions with seven fields"):
            TensorProductConv(*IRREPS, given, **{name: choice})


@pytest.mark.parametrize("name", ["irrep_normalization", "path_normalization"])
def test_an_unknown_normalisation_is_named(name):
    with pytest.raises(ValueError, match=f"^{name}: expected one of"):
        TensorProductConv(*IRREPS, **{name: "most"})


def test_lists_and_other_integers_serve_as_well():
    numpy = pytest.importorskip("numpy")
    wanted = TensorProductConv(*IRREPS, SHARING)
    others = [[*map(numpy.int64, i[:3]), *i[3:]] for i in SHARING]
    for given in (others, iter(SHARING), tuple(map(list, SHARING))):
        layer = TensorProductConv(*IRREPS, given)
        assert torch.equal(
            layer(X, EDGE_INDEX, EDGE_ATTR, weights(layer)), wanted(X, EDGE_INDEX, EDGE_ATTR, weights(layer))
        )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", [{}, {"aggr": "mean"}, {"shared_weights": True}, {"layout": "ir_mul"}], ids=str)
def test_no_instructions_give_zeros(options, backend):
    layer = TensorProductConv(*IRREPS, [], backend=backend, **options)
    out = layer(X, EDGE_INDEX, EDGE_ATTR)
    assert layer.weight_numel == 0
    assert out.shape == (SOURCES, layer.irreps_out.dim)
    assert out.dtype == X.dtype
    assert not out.any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_paths_that_all_have_no_weights(backend):
    layer = TensorProductConv(*IRREPS, WITHOUT_WEIGHTS, backend=backend)
    product = e3nn_product(layer, WITHOUT_WEIGHTS)

    def derivatives(function):
        x, edge_attr = (t.clone().requires_grad_() for t in (X, EDGE_ATTR))
        out = function(x, EDGE_INDEX, edge_attr, None)
        first = torch.autograd.grad(out.square().sum(), (x, edge_attr), create_graph=True)
        return [out, *first, *torch.autograd.grad(sum(g.square().sum() for g in first), (x, edge_attr))]

    wanted = derivatives(lambda *inputs: convolved(product, *inputs))
    assert_orders(derivatives(layer), wanted)
    assert_orders(
        [layer(X, EDGE_INDEX, EDGE_ATTR), layer(X, EDGE_INDEX, EDGE_ATTR, X.new_empty(EDGES, 0))], wanted[:1] * 2
    )
    shared = TensorProductConv(*IRREPS, WITHOUT_WEIGHTS, backend=backend, shared_weights=True)
    assert_orders([shared(X, EDGE_INDEX, EDGE_ATTR)], wanted[:1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_that_are_needed_are_missed(backend):
    layer = TensorProductConv(*IRREPS, SHARING, backend=backend)
    with pytest.raises(TypeError, match=r"^weight: expected a tensor of shape \(12, 6\), got NoneType"):
        layer(X, EDGE_INDEX, EDGE_ATTR)


@pytest.mark.parametrize("backend", BACKENDS)
def test_shared_weights_may_be_a_row(backend):
    layer = TensorProductConv(*IRREPS, SHARING, backend=backend, shared_weights=True)
    product, row = e3nn_product(layer, SHARING), weights(layer)[:1]
    wanted = orders(lambda *inputs: convolved(product, *inputs), X, EDGE_INDEX, EDGE_ATTR, row[0])
    assert_orders(orders(layer, X, EDGE_INDEX, EDGE_ATTR, row[0]), wanted)
    found = orders(layer, X, EDGE_INDEX, EDGE_ATTR, row)
    assert_orders([t.reshape(w.shape) for t, w in zip(found, wanted, strict=True)], wanted)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "irreps",
    [
        ("0x0e+2x0e+2x1o", "0e+1o", "0e+1o"),
        ("2x0e+2x1o", "0x2e+0e+1o", "0e+1o"),
        ("2x0e+2x1o", "0e+1o", "0x0e+0x1o"),
        ("2x0e+0x1o", "0e+0x1o", "0e+1o"),
    ],
)
def test_multiplicities_of_zero(irreps, backend):
    layer = TensorProductConv(*irreps, backend=backend)
    x, edge_attr, weight = X[:, : layer.irreps_in.dim], EDGE_ATTR[:, : layer.irreps_edge.dim], weights(layer)
    product = e3nn_product(layer)
    wanted = orders(lambda *inputs: convolved(product, *inputs), x, EDGE_INDEX, edge_attr, weight)
    assert_orders(orders(layer, x, EDGE_INDEX, edge_attr, weight), wanted)


def test_nothing_but_multiplicities_of_zero():
    layer = TensorProductConv("0x0e", "0e", "0e")
    assert layer(X[:, :0], EDGE_INDEX, EDGE_ATTR[:, :1], weights(layer)).shape == (SOURCES, 0)


def test_an_unknown_mode_is_named():
    with pytest.raises(ValueError, match=r"^instructions: mode: expected one of \('uvu', .*got 'xyz'"):
        TensorProductConv(*IRREPS, [(0, 0, 0, "xyz", True)])


def test_normalised_instructions_are_not_mixed_with_others():
    given = [TensorProductConv(*IRREPS, SHARING).instructions[0], SHARING[1]]
    with pytest.raises(
        ValueError, match=r"^instructions: those of a product, with seven fields, are mixed with others"
    ):
        TensorProductConv(*IRREPS, given)


NORMALISED = TensorProductConv(*IRREPS, SHARING).instructions[0]


@pytest.mark.parametrize(
    ("instructions", "words"),
    [
        ([(0, 0, 0, "uvu")], "has 4 fields"),
        ([(0, 0, 0, "uvu", True, 1.0, (2, 1), None)], "has 8 fields"),
        ([5], "'int' object is not iterable"),
        (5, "'int' object is not iterable"),
        ([None], "'NoneType' object is not iterable"),
        (["abc"], "has 3 fields"),
        ([(0.0, 0, 0, "uvu", True)], "cannot be interpreted as an integer"),
        ([("0", 0, 0, "uvu", True)], "cannot be interpreted as an integer"),
        ([(-2, 0, 0, "uvu", True)], "names a slot that there is not"),
        ([(0, 0, -2, "uvu", True)], "names a slot that there is not"),
        ([(0, 2, 0, "uvu", True)], "names a slot that there is not"),
        ([(0, 0, 0, "uvu", True, None)], "not supported between"),
        ([(0, 0, 0, "uvu", True, -1.0)], "path weight that is not a number of 0 or more"),
        ([(0, 0, 0, "uvu", True, float("nan"))], "path weight that is not a number of 0 or more"),
        ([NORMALISED._replace(path_weight=-1.0)], "path weight that is not a number of 0 or more"),
        ([(0, 0, 1, "uvu", True)], "e3nn rejects"),
    ],
)
def test_malformed_lists_are_named(instructions, words):
    with pytest.raises(ValueError, match=r"^instructions: e3nn rejects the paths of") as told:
        TensorProductConv(*IRREPS, instructions)
    assert words in str(told.value)


@pytest.mark.parametrize("name", ["irreps_in", "irreps_edge", "irreps_out"])
@pytest.mark.parametrize("given", ["2x0q", 5])
def test_other_things_than_irreps_are_named(name, given):
    arguments = dict(zip(("irreps_in", "irreps_edge", "irreps_out"), IRREPS, strict=True))
    with pytest.raises(ValueError, match=f"^{name}: expected irreps such as '16x0e\\+16x1o', got {given!r}"):
        TensorProductConv(**{**arguments, name: given})
