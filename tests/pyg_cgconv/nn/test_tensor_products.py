"""Tensor products of rows against e3nn's, in float64."""

import copy
import pickle
import warnings

import pytest
import torch
from e3nn import o3

import pyg_cgconv
from pyg_cgconv import ElementwiseTensorProduct, FullyConnectedTensorProduct, TensorProduct, TensorSquare

PATHS = [(0, 0, 0, "uvu", True), (0, 1, 1, "uvu", True), (1, 1, 0, "uvu", False), (1, 0, 1, "uvu", True)]
IRREPS = "3x0e+3x1o", "2x0e+1o", "3x0e+3x1o"

EVERY_MODE = (
    "3x0e+3x1o",
    "3x0e+3x1o",
    "3x0e+3x1o+9x1e+1x0e",
    [
        (0, 0, 0, "uvu", True),
        (0, 1, 1, "uvw", True),
        (1, 1, 0, "uuu", True),
        (1, 0, 1, "uvu<v", True),
        (0, 1, 1, "uvv", True),
        (0, 0, 0, "u<vw", True),
        (1, 1, 2, "uvuv", False),
        (1, 1, 3, "uuw", False),
    ],
)


def rows_of(product) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(4, product.irreps_in1.dim), torch.randn(4, product.irreps_in2.dim)


@pytest.fixture(autouse=True)
def double():
    """e3nn keeps its coefficients at the default dtype of their making."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def both(*arguments, ours=TensorProduct, theirs=o3.TensorProduct, **options):
    product, reference = ours(*arguments, **options), theirs(*arguments, **options)
    reference.load_state_dict(product.state_dict())  # there and back: the names are the same
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


@pytest.mark.slow
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


@pytest.mark.parametrize("weighted", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_elementwise_paths_have_a_kernel(device, weighted):
    irreps, paths = o3.Irreps("4x0e+4x1o+4x1e"), [(0, 1, 1), (1, 1, 0), (1, 2, 1), (2, 2, 2)]
    product, reference = both(irreps, irreps, irreps, [(*path, "uuu", weighted) for path in paths])
    assert product._summands
    close(product.to(device), reference.to(device), *(torch.randn(5, irreps.dim, device=device) for _ in range(2)))


@pytest.mark.slow
def test_the_fully_connected_product_is_e3nns(device):
    arguments = "3x0e+2x1o", "2x0e+1o", "4x0e+3x1o+2x1e+5x3e"  # nothing leads to 3e
    product, reference = both(*arguments, ours=FullyConnectedTensorProduct, theirs=o3.FullyConnectedTensorProduct)
    assert product._summands
    close(product.to(device), reference.to(device), *(torch.randn(6, n, device=device) for n in (9, 5)))


@pytest.mark.slow
def test_the_elementwise_product_is_e3nns(device):
    arguments = "2x0e+3x1o", "2x0e+3x1o", ["0e", "1e"]
    product, reference = both(*arguments, ours=ElementwiseTensorProduct, theirs=o3.ElementwiseTensorProduct)
    close(product.to(device), reference.to(device), *(torch.randn(5, 11, device=device) for _ in range(2)))


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("3x0e+2x1o",), marks=pytest.mark.thorough),
        pytest.param(("3x0e+2x1o", "4x0e+2x1e+5x2e+1x3o"), marks=pytest.mark.thorough),
        pytest.param(("2x0e+2x1o", None, ["0e", "1e"]), marks=pytest.mark.thorough),
        ("1x0e", "2x0e"),
    ],
    ids=str,
)
def test_the_square_is_e3nns(device, arguments):
    product, reference = both(*arguments, ours=TensorSquare, theirs=o3.TensorSquare)
    assert product._summands
    close(product.to(device), reference.to(device), torch.randn(5, product.irreps_in.dim, device=device))


def test_a_square_with_weights_of_each_row_is_e3nns():
    product = TensorSquare("3x1o", "2x0e", shared_weights=False)
    assert product._summands
    x, weight = torch.randn(4, 9), torch.randn(4, product.weight_numel)
    expected = o3.TensorSquare("3x1o", "2x0e", shared_weights=False)(x, weight)
    torch.testing.assert_close(product(x, weight), expected)


@pytest.mark.parametrize("irrep_normalization", ["component", "norm", "none"])
def test_normalisations_of_squares_are_e3nns(irrep_normalization):
    arguments, options = ("3x1o", "2x0e+2x2e"), {"irrep_normalization": irrep_normalization, "internal_weights": False}
    product, reference = both(*arguments, ours=TensorSquare, theirs=o3.TensorSquare, **options)
    x, weight = torch.randn(2, 3, 9), torch.randn(product.weight_numel)
    torch.testing.assert_close(product(x, weight), reference(x, weight))
    torch.testing.assert_close(product(x, list(product.weight_views(weight))), reference(x, weight))
    assert str(product) == str(reference)


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


@pytest.mark.thorough
def test_views_of_weights_are_e3nns():
    product, reference = both(*EVERY_MODE)
    for ours, theirs in zip(product.weight_views(), reference.weight_views(), strict=True):
        assert torch.equal(ours, theirs)
    view = product.weight_view_for_instruction(1)
    assert torch.equal(view, reference.weight_view_for_instruction(1))
    x, y = rows_of(product)
    before = product(x, y)
    with torch.no_grad():
        view.zero_()
        reference.weight_view_for_instruction(1).zero_()
    assert not torch.allclose(product(x, y), before)
    torch.testing.assert_close(product(x, y), reference(x, y))


@pytest.mark.parametrize("paths", [PATHS, [(0, 1, 1, "uvw", True), (1, 0, 1, "uvv", True)]], ids=["uvu", "uvw, uvv"])
def test_right_is_e3nns(paths):
    irreps = ("3x0e+3x1o", "2x0e+1o", "3x0e+3x1o") if paths is PATHS else ("3x0e+1o", "2x0e+1o", "3x0e+2x1o")
    product, reference = both(*irreps, paths, compile_right=True)
    y = torch.randn(4, 5)
    torch.testing.assert_close(product.right(y), reference.right(y))


@pytest.mark.parametrize("arguments", [(*IRREPS, PATHS), EVERY_MODE], ids=["uvu", "every mode"])
def test_copies_and_pickles_compute_the_same(arguments):
    product = TensorProduct(*arguments)
    x, y = rows_of(product)
    for copied in (copy.deepcopy(product), pickle.loads(pickle.dumps(product))):
        assert torch.equal(copied(x, y), product(x, y))


@pytest.mark.parametrize(
    "arguments",
    [pytest.param((*IRREPS, PATHS), id="uvu"), pytest.param(EVERY_MODE, id="every mode", marks=pytest.mark.thorough)],
)
def test_forward_mode_and_vmap(arguments):
    product, reference = both(*arguments)
    (x, y), (change, _) = rows_of(product), rows_of(product)
    tangent = torch.func.jvp(lambda x: product(x, y), (x,), (change,))[1]
    torch.testing.assert_close(tangent, reference(change, y))  # linear in x
    each = torch.vmap(product, in_dims=(0, None))(torch.stack([x, change]), y)
    torch.testing.assert_close(each, torch.stack([reference(x, y), reference(change, y)]))


@pytest.mark.thorough
def test_weights_under_vmap_and_hessians():
    paths = [(0, 0, 0, "uvv", True), (0, 1, 1, "u<vw", True)]
    product, reference = both("3x0e", "3x0e+3x1o", "3x0e+2x1o", paths, internal_weights=False)
    x, y = rows_of(product)
    weights = torch.randn(2, product.weight_numel)
    each = torch.vmap(lambda weight: product(x, y, weight))(weights)
    torch.testing.assert_close(each, torch.stack([reference(x, y, weight) for weight in weights]))
    found, expected = (
        torch.func.hessian(lambda x, call=call: call(x, y, weights[0]).square().sum())(x)
        for call in (product, reference)
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((*IRREPS, PATHS), id="uvu"),
        pytest.param(EVERY_MODE, id="every mode", marks=pytest.mark.thorough),
    ],
)
def test_compiled_without_graph_breaks(arguments):
    product = TensorProduct(*arguments)
    x, y = (t.requires_grad_() for t in rows_of(product))
    compiled = torch.compile(product, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, y), product(x, y))
    found, expected = (torch.autograd.grad(call(x, y).square().sum(), (x, y)) for call in (compiled, product))
    torch.testing.assert_close(found, expected)


@pytest.mark.slow
def test_every_mode_is_exported():
    product = TensorProduct(*EVERY_MODE)
    rows = torch.export.Dim("rows")
    program = torch.export.export(product, rows_of(product), dynamic_shapes=({0: rows}, {0: rows})).module()
    x, y = (t[:3] for t in rows_of(product))
    torch.testing.assert_close(program(x, y), product(x, y))


def test_autocast_computes_in_float32():
    product = TensorProduct(*IRREPS, PATHS).float()
    x, y = torch.randn(4, 12).bfloat16(), torch.randn(4, 5).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = product(x, y)
    torch.testing.assert_close(out, product(x.float(), y))


@pytest.mark.parametrize(
    ("change", "raised", "words"),
    [
        (dict(x=torch.ones(4, 11)), ValueError, r"x: expected \(..., 12\), got \(4, 11\), in TensorProduct"),
        (dict(x=torch.ones(())), ValueError, r"x: expected \(..., 12\), got \(\)"),
        (dict(y=torch.ones(4, 6)), ValueError, r"y: expected \(..., 5\), got \(4, 6\)"),
        (
            dict(y=torch.ones(3, 5).double()),
            ValueError,
            r"y: rows {'x': \(4,\), 'y': \(3,\)} do not broadcast.*; expected equal",
        ),
        (
            dict(weight=torch.ones(4, 15).double()),
            ValueError,
            r"weight: expected \(15,\), got \(4, 15\).*shared_weights=False",
        ),
        (dict(weight=torch.ones(3)), ValueError, r"weight: expected \(..., 15\), got \(3,\)"),
        (dict(weight=None), ValueError, r"weight: missing; TensorProduct.* has no weights of its own, give \(15,\)"),
        (
            dict(weight=[torch.ones(15)]),
            ValueError,
            r"weight: expected tensors of .* shapes \[\(3, 2\), .*, got \[\(15,\)\]",
        ),
        (dict(weight=[torch.ones(3, 2), torch.ones(3, 1), 5]), ValueError, r"weight: expected tensors of .*'int'\]"),
        (dict(weight=1.0), TypeError, r"weight: expected a tensor \(..., 15\), got float"),
        (dict(x=[1.0]), TypeError, r"x: expected a tensor \(..., 12\), got list"),
        (dict(y=None), TypeError, r"y: expected a tensor \(..., 5\), got NoneType"),
        (dict(x=torch.ones(4, 12).long()), TypeError, "x: dtype torch.int64 has no kernel; convert x to float32"),
        (dict(x=torch.ones(4, 12).half()), TypeError, "x: dtype torch.float16 has no kernel; convert x to float32"),
        (dict(y=torch.ones(4, 5).float()), TypeError, "y: dtype torch.float32 differs from that of x, torch.float64; "),
        (dict(y=torch.ones(4, 5).half()), TypeError, "y: dtype torch.float16 differs from that of x, torch.float64; "),
        (dict(weight=torch.ones(15).int()), TypeError, "weight: dtype torch.int32 differs from .*; convert one"),
        (dict(x=torch.ones(4, 12, device="meta")), ValueError, "x: on meta, which has no kernels; move x"),
        (dict(y=torch.ones(4, 5, device="meta")), ValueError, "y: on meta, but x is on cpu; move it"),
    ],
)
def test_wrong_calls_are_named(change, raised, words):
    product = TensorProduct(*IRREPS, PATHS, internal_weights=False)
    given = {"x": torch.ones(4, 12), "y": torch.ones(4, 5), "weight": torch.ones(15)}
    with pytest.raises(raised, match=f"^{words}"):
        product(**{**given, **change})


@pytest.mark.parametrize(
    ("call", "raised", "words"),
    [
        (
            lambda: TensorProduct(*IRREPS, PATHS).float()(*ROWS),
            TypeError,
            "weight: the product's own .*float32.*float64",
        ),
        (lambda: OWN(*ROWS), ValueError, r"weight: missing; .*, give \(..., 15\)"),
        (lambda: OWN(*ROWS, torch.ones(3, 15)), ValueError, r"y: rows .*'weight': \(3,\)} do not broadcast"),
        (lambda: OWN(*ROWS, [torch.ones(4, 2)] * 3), ValueError, r"weight: .* shapes \[\('...', 3, 2\)"),
        (
            lambda: ElementwiseTensorProduct("2x0e", "2x0e")(*[torch.ones(4, 2)] * 3),
            ValueError,
            r"weight: .*\(..., 0\)",
        ),
        (lambda: TensorSquare("2x0e")(*[torch.ones(4, 2)] * 2), ValueError, r"weight: .*\(..., 0\).* in TensorSquare"),
        (lambda: TensorSquare("2x0e")(torch.ones(4, 3)), ValueError, r"x: .*\(..., 2\), got \(4, 3\), in TensorSquare"),
    ],
)
def test_wrong_calls_of_other_products_are_named(call, raised, words):
    with pytest.raises(raised, match=f"^{words}"):
        call()


ROWS = torch.ones(4, 12, dtype=torch.float64), torch.ones(4, 5, dtype=torch.float64)
OWN = TensorProduct(*IRREPS, PATHS, shared_weights=False)
NORMALISED = list(OWN.instructions)


@pytest.mark.parametrize(
    ("make", "arguments", "options", "words"),
    [
        (TensorProduct, ("2x0q", *IRREPS[1:], PATHS), {}, "irreps_in1: expected irreps such as .*, got '2x0q'"),
        (FullyConnectedTensorProduct, ("2x0e", -1, "0e"), {}, "irreps_in2: expected irreps such as .*, got -1"),
        (TensorSquare, (5,), {}, "irreps_in: expected irreps such as .*, got 5"),
        (ElementwiseTensorProduct, ("2x0e", "3x0e"), {}, "irreps_in2: .*, 2 in 2x0e, got 3 in 3x0e"),
        (ElementwiseTensorProduct, ("0e", "0e", ["9z"]), {}, r"filter_ir_out: expected a list .*, got \['9z'\]"),
        (TensorSquare, ("0e", "0e", ["0e"]), {}, "filter_ir_out: given beside irreps_out; leave out one"),
        (TensorProduct, (*IRREPS, [(0, 0, 0, "uwu", True)]), {}, "instructions: mode: expected one of .*, got 'uwu'"),
        (TensorProduct, (*IRREPS, [(0, 0, 5, "uvu", True)]), {}, "instructions: .*names a slot that there is not"),
        (TensorProduct, (*IRREPS, [(0, 0, -1, "uvu", True)]), {}, "instructions: .*names a slot that there is not"),
        (TensorProduct, (*IRREPS, [(0, 0, 0, "uvu")]), {}, "instructions: .*has 4 fields"),
        (TensorProduct, (*IRREPS, NORMALISED), {}, "instructions: .*has 7 fields; .* take the first five"),
        (TensorProduct, (*IRREPS, [(0, 0, 1, "uvu", True)]), {}, "instructions: e3nn rejects .* that can be coupled"),
        (TensorProduct, (*IRREPS, [(0, 0, 0, "uvw", False)]), {}, "instructions: e3nn rejects .* that fit the mode"),
        (TensorProduct, (*IRREPS, PATHS), {"irrep_normalization": "x"}, "irrep_normalization: expected one of .*'x'"),
        (TensorSquare, ("0e",), {"irrep_normalization": "x"}, "irrep_normalization: expected one of .*'x'"),
        (TensorProduct, (*IRREPS, PATHS), {"path_normalization": "x"}, "path_normalization: expected one of .*'x'"),
        (TensorProduct, (*IRREPS, PATHS), {"in1_var": [1.0]}, r"in1_var: expected 2 numbers, .*, got \[1.0\]"),
        (
            TensorProduct,
            (*IRREPS, PATHS),
            {"shared_weights": False, "internal_weights": True},
            "internal_weights: True with shared_weights=False; .*leave out one",
        ),
    ],
)
def test_wrong_products_are_named(make, arguments, options, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        make(*arguments, **options)


def test_paths_are_drawn_as_e3nn_draws_them():
    pytest.importorskip("matplotlib").use("Agg")
    product, reference = both(*IRREPS, PATHS)
    (_, ours), (_, theirs) = product.visualize(plot_weight=False), reference.visualize(plot_weight=False)
    assert [text.get_text() for text in ours.texts] == [text.get_text() for text in theirs.texts]
    assert len(ours.patches) == len(theirs.patches) > 0


def test_the_package_has_the_products():
    assert pyg_cgconv.TensorProduct is TensorProduct
    assert pyg_cgconv.TensorSquare is pyg_cgconv.nn.TensorSquare
