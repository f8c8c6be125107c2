"""Tensor products of rows against e3nn's, in float64."""

import copy
import pickle
import warnings

import pytest
import torch
from e3nn import o3
from hypothesis import given
from hypothesis import strategies as st

import pyg_cgconv
from pyg_cgconv import ElementwiseTensorProduct, FullyConnectedTensorProduct, TensorProduct
from tests.random_examples import examples

PATHS = [(0, 0, 0, "uvu", True), (0, 1, 1, "uvu", True), (1, 1, 0, "uvu", False), (1, 0, 1, "uvu", True)]
IRREPS = "3x0e+3x1o", "2x0e+1o", "3x0e+3x1o"


@pytest.fixture(autouse=True)
def double():
    """e3nn keeps its coefficients at the default dtype of their making."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def both(*arguments, ours=TensorProduct, theirs=o3.TensorProduct, **options):
    product, reference = ours(*arguments, **options), theirs(*arguments, **options)
    product.load_state_dict(reference.state_dict())
    return product, reference


def close(product, reference, *inputs) -> None:
    """Values, gradients by all inputs, and the gradients of their squares."""
    results = []
    for call in (product, reference):
        leaves = [t.clone().requires_grad_() for t in inputs]
        out = call(*leaves)
        wanted = [*leaves, *call.parameters()]
        first = torch.autograd.grad(out.square().sum(), wanted, create_graph=True, materialize_grads=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), wanted, materialize_grads=True)
        results.append([out, *first, *second])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("options", [{}, {"shared_weights": False}, {"internal_weights": False}], ids=str)
def test_products_are_e3nns_with_their_derivatives(device, options):
    product, reference = both(*IRREPS, PATHS, **options)
    rows = {} if product.internal_weights else {"w": (6, product.weight_numel)}
    if product.shared_weights and rows:
        rows["w"] = rows["w"][1:]
    inputs = [torch.randn(*shape, device=device) for shape in ((6, 12), (6, 5), *rows.values())]
    close(product.to(device), reference.to(device), *inputs)


@pytest.mark.parametrize(
    "options",
    [
        {"irrep_normalization": "norm", "path_normalization": "path"},
        {"irrep_normalization": "none", "path_normalization": "none"},
        {"in1_var": [2.0, 0.5], "in2_var": [1.0, 3.0], "out_var": [0.1, 4.0]},
    ],
    ids=str,
)
def test_normalisations_are_e3nns(options):
    product, reference = both(*IRREPS, [(*path, 0.7) for path in PATHS], **options)
    x, y = torch.randn(4, 12), torch.randn(4, 5)
    torch.testing.assert_close(product(x, y), reference(x, y))


@pytest.mark.parametrize(
    "shapes", [((12,), (5,)), ((4, 1, 12), (1, 3, 5)), ((0, 12), (5,)), ((2, 3, 12), (3, 5))], ids=str
)
def test_leading_dimensions_broadcast(shapes):
    product, reference = both(*IRREPS, PATHS)
    x, y = (torch.randn(*shape) for shape in shapes)
    torch.testing.assert_close(product(x, y), reference(x, y))


@pytest.mark.parametrize("weighted", [False, True])
def test_elementwise_paths_have_a_kernel(device, weighted):
    irreps, paths = o3.Irreps("4x0e+4x1o+4x1e"), [(0, 1, 1), (1, 1, 0), (1, 2, 1), (2, 2, 2)]
    product, reference = both(irreps, irreps, irreps, [(*path, "uuu", weighted) for path in paths])
    assert product._description is not None
    close(product.to(device), reference.to(device), *(torch.randn(5, irreps.dim, device=device) for _ in range(2)))


def test_the_fully_connected_product_is_e3nns(device):
    arguments = "3x0e+2x1o", "2x0e+1o", "4x0e+3x1o+2x1e+5x3e"  # nothing leads to 3e
    product, reference = both(*arguments, ours=FullyConnectedTensorProduct, theirs=o3.FullyConnectedTensorProduct)
    assert product._description is not None
    close(product.to(device), reference.to(device), *(torch.randn(6, n, device=device) for n in (9, 5)))


def test_the_elementwise_product_is_e3nns(device):
    arguments = "2x0e+3x1o", "2x0e+3x1o", ["0e", "1e"]
    product, reference = both(*arguments, ours=ElementwiseTensorProduct, theirs=o3.ElementwiseTensorProduct)
    close(product.to(device), reference.to(device), *(torch.randn(5, 11, device=device) for _ in range(2)))


@st.composite
def problems(draw):
    """Irreps and instructions of one mode that has a kernel."""
    mode = draw(st.sampled_from(["uvu", "uuu", "uvw"]))
    irrep = st.tuples(st.integers(0, 2), st.sampled_from([-1, 1]))
    multiplicity = draw(st.sampled_from([1, 3, 8]))
    left = o3.Irreps([(multiplicity, ir) for ir in draw(st.lists(irrep, min_size=1, max_size=2))])
    copies = multiplicity if mode == "uuu" else draw(st.integers(1, 2))
    right = o3.Irreps([(copies, ir) for ir in draw(st.lists(irrep, min_size=1, max_size=2))])
    paths = [(i, j, ir) for i, a in enumerate(left) for j, b in enumerate(right) for ir in a.ir * b.ir]
    chosen = draw(st.lists(st.sampled_from(paths), min_size=1, max_size=3))
    out = o3.Irreps([(multiplicity, "3e"), *((multiplicity, ir) for *_, ir in chosen)])  # nothing leads to the first
    shared = mode == "uvw" or draw(st.booleans())
    instructions = [(i, j, n + 1, mode, mode == "uvw" or draw(st.booleans())) for n, (i, j, _) in enumerate(chosen)]
    return left, right, out, instructions, shared


@examples(6)
@given(problem=problems())
def test_random_products_are_e3nns(device, problem):
    *arguments, shared = problem
    product, reference = both(*arguments, shared_weights=shared, internal_weights=False)
    shapes = (
        (7, arguments[0].dim),
        (7, arguments[1].dim),
        ((product.weight_numel,) if shared else (7, product.weight_numel)),
    )
    close(product.to(device), reference.to(device), *(torch.randn(*shape, device=device) for shape in shapes))


def test_other_modes_are_e3nns_and_say_so():
    with pytest.warns(UserWarning, match=r"^instructions: modes \['uvv'\] have no generated kernel"):
        product, reference = both("3x0e", "2x0e", "2x0e", [(0, 0, 0, "uvv", True)])
    x, y = torch.randn(4, 3), torch.randn(4, 2)
    torch.testing.assert_close(product(x, y), reference(x, y))


def test_products_without_paths_are_zero_without_a_word():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        product = TensorProduct("3x0e", "0e", "3x0e", [])
    assert not product(torch.randn(4, 3), torch.randn(4, 1)).any()


def test_weights_come_in_any_form_that_e3nn_takes():
    product, reference = both(*IRREPS, PATHS, internal_weights=False)
    x, y, weight = torch.randn(4, 12), torch.randn(4, 5), torch.randn(product.weight_numel)
    expected = reference(x, y, weight)
    torch.testing.assert_close(product(x, y, weight), expected)
    torch.testing.assert_close(product(x, y, weight[None]), expected)
    torch.testing.assert_close(product(x, y, list(product.weight_views(weight))), expected)


def test_right_is_e3nns():
    product, reference = both(*IRREPS, PATHS, compile_right=True)
    y = torch.randn(4, 5)
    torch.testing.assert_close(product.right(y), reference.right(y))


def test_copies_and_pickles_compute_the_same():
    product = TensorProduct(*IRREPS, PATHS)
    x, y = torch.randn(4, 12), torch.randn(4, 5)
    for copied in (copy.deepcopy(product), pickle.loads(pickle.dumps(product))):
        assert torch.equal(copied(x, y), product(x, y))


def test_forward_mode_and_vmap():
    product, reference = both(*IRREPS, PATHS)
    x, y, change = torch.randn(4, 12), torch.randn(4, 5), torch.randn(4, 12)
    tangent = torch.func.jvp(lambda x: product(x, y), (x,), (change,))[1]
    torch.testing.assert_close(tangent, reference(change, y))  # linear in x
    each = torch.vmap(product, in_dims=(0, None))(torch.stack([x, change]), y)
    torch.testing.assert_close(each, torch.stack([reference(x, y), reference(change, y)]))


def test_compiled_without_graph_breaks():
    product = TensorProduct(*IRREPS, PATHS)
    x, y = torch.randn(4, 12), torch.randn(4, 5)
    compiled = torch.compile(product, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, y), product(x, y))


def test_autocast_computes_in_float32():
    product = TensorProduct(*IRREPS, PATHS).float()
    x, y = torch.randn(4, 12).bfloat16(), torch.randn(4, 5).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = product(x, y)
    torch.testing.assert_close(out, product(x.float(), y))


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (((4, 11), (4, 5), (15,)), r"^x: expected \(..., 12\), got \(4, 11\)"),
        (((4, 12), (4, 6), (15,)), r"^y: expected \(..., 5\), got \(4, 6\)"),
        (((4, 12), (4, 5), (4, 15)), r"^weight: expected \(15,\), got \(4, 15\)"),
        (((4, 12), (4, 5), (3,)), r"^weight: expected \(..., 15\), got \(3,\)"),
    ],
)
def test_wrong_shapes_are_named(shapes, words):
    with pytest.raises(ValueError, match=words):
        TensorProduct(*IRREPS, PATHS)(*(torch.ones(*shape) for shape in shapes))


def test_wrong_dtypes_are_named():
    product = TensorProduct(*IRREPS, PATHS)
    with pytest.raises(TypeError, match=r"^y: dtype torch.float32 differs from that of x, torch.float64"):
        product(torch.ones(4, 12), torch.ones(4, 5).float())
    with pytest.raises(TypeError, match=r"^x: dtype torch.float16 has no kernel"):
        product.half()(torch.ones(4, 12).half(), torch.ones(4, 5).half())


def test_missing_weights_are_named():
    with pytest.raises(ValueError, match=r"^weight: missing"):
        TensorProduct(*IRREPS, PATHS, internal_weights=False)(torch.ones(4, 12), torch.ones(4, 5))


def test_the_package_has_the_products():
    assert pyg_cgconv.TensorProduct is TensorProduct
