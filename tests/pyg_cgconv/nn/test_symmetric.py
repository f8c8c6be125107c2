"""Symmetric contractions: of equivariant polynomials there are all and no others; derivatives; what is refused.

That they are MACE's is tested with MACE, in tests/pyg_cgconv/integrations.
"""

import copy
from functools import partial

import pytest
import torch
from e3nn import o3
from hypothesis import given
from hypothesis import strategies as st

from cuda_kernels.monomials import monomials
from pyg_cgconv import SymmetricContraction
from pyg_cgconv.nn import _symmetric
from pyg_cgconv.tensor_product import coefficients_of_weights, describe, paths_of, polynomial_entries, problem_of
from pyg_cgconv.tensor_product._polynomials import basis
from tests.emulated import emulated_gpu
from tests.random_examples import examples
from tests.rotations import assert_equivariant, in_layout
from tests.transforms import TRANSFORMS

IRREPS = o3.Irreps("3x0e+3x1o+3x2e"), o3.Irreps("3x0e+3x1o+3x0o")
ELEMENTS = torch.tensor([1, 0, 1, 1, 3, 1, 1])


def features(irreps, dtype=torch.float64, rows=7):
    return torch.randn(rows, irreps.dim, generator=torch.Generator().manual_seed(0)).to(dtype)


def contraction(irreps=IRREPS, correlation=3, dtype=torch.float64, **options):
    torch.manual_seed(0)
    return SymmetricContraction(*irreps, correlation, 4, **options).to(dtype)


def reference(layer):
    """The same in plain PyTorch, in float64."""
    result = SymmetricContraction(
        layer.irreps_in,
        layer.irreps_out,
        layer.correlation,
        layer.num_elements,
        layout=layer.layout,
        backend="reference",
    )
    result.load_state_dict(layer.state_dict())
    return result.double()


def by_monomials(layer, x, element):
    """Each entry's coefficient times its monomial, of features in mul_ir."""
    irreps_in, irreps_out = layer.irreps_in, layer.irreps_out
    combined = coefficients_of_weights(irreps_in, irreps_out, layer.correlation)
    coefficients = torch.einsum("pq,zpu->zqu", combined, layer.weight.double())[element]
    blocks = [x[:, s].unflatten(1, (mul, ir.dim)) for s, (mul, ir) in zip(irreps_in.slices(), irreps_in, strict=True)]
    out = [x.new_zeros(len(x), mul, ir.dim) for mul, ir in irreps_out]
    for q, (monomial, slot, k) in enumerate(polynomial_entries(irreps_in, irreps_out, layer.correlation)):
        out[slot][:, :, k] += coefficients[:, q] * torch.stack([blocks[s][:, :, i] for s, i in monomial]).prod(0)
    return torch.cat([block.flatten(1) for block in out], 1)


def copies_of(out, irreps, degree):
    """How often an irrep is in the symmetric power of others, by their characters: an average over all rotations."""
    angle = (torch.arange(256, dtype=torch.float64) + 0.5) * torch.pi / 256
    measure = (1 - torch.cos(angle)) / 256
    total = 0.0
    for inverted in (False, True):
        powers = [None, *(sum(_character(ir, n, angle, inverted) for ir in irreps) for n in range(1, degree + 1))]
        symmetric = [torch.ones_like(angle)]
        for n in range(1, degree + 1):  # Newton's identities
            symmetric.append(sum(powers[m] * symmetric[n - m] for m in range(1, n + 1)) / n)
        total += (measure * symmetric[degree] * _character(out, 1, angle, inverted)).sum() / 2
    return round(total.item())


def _character(ir, power, angle, inverted):
    """Of a power of rotations by these angles."""
    values = torch.sin((2 * ir.l + 1) * power * angle / 2) / torch.sin(power * angle / 2)
    return values * float(ir.p) ** power if inverted else values


@pytest.mark.parametrize(("irreps", "degree"), [("0e+1o+2e+3o", 3), ("0e+0o+1o+1e", 3), ("0e+1o+2e", 4), ("1o+4e", 3)])
def test_all_independent_polynomials_are_there(irreps, degree):
    slots = tuple(ir for _, ir in o3.Irreps(irreps))
    for out in map(o3.Irrep, ("0e", "0o", "1o", "1e", "2e", "3o")):
        for n in range(1, degree + 1):
            assert len(basis(slots, out, n)) == copies_of(out, slots, n)


@pytest.mark.parametrize("layout", ["mul_ir", "ir_mul"])
def test_equivariance(layout):
    layer = contraction(layout=layout)
    element = ELEMENTS[:5]

    class OfElements(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.layout = layer, layout

        def forward(self, x):
            return self.layer(x, element)

    assert assert_equivariant(OfElements(), *IRREPS).abs().max() > 0.1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("layout", _symmetric.LAYOUTS)
def test_each_coefficient_is_that_of_its_monomial(device, layout, dtype):
    layer = contraction(layout=layout, dtype=dtype)
    x = features(IRREPS[0], dtype)
    given, rows = in_layout(x, IRREPS[0], layout), x
    if layout == "mul_joined":
        given = torch.cat([x[:, s].unflatten(1, (3, -1)) for s in IRREPS[0].slices()], 2)
        rows = x
    out = layer.to(device)(given.to(device), ELEMENTS.to(device)).cpu()
    expected = by_monomials(layer.cpu(), rows.double(), ELEMENTS)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    wanted = in_layout(expected, IRREPS[1], layout)
    torch.testing.assert_close(out.double(), wanted, rtol=tolerance, atol=tolerance)
    assert not out[:, -3:].any()  # no polynomial of up to three of these features is 0o


def all_orders(layer, x, element):
    """The output, its gradients, and the gradients of a sum of these."""
    x = x.detach().requires_grad_()
    out = layer(x, element)
    cotangent = torch.linspace(-1, 1, out.numel()).view(out.shape).to(out).requires_grad_()
    first = torch.autograd.grad(out, (x, layer.weight), cotangent, create_graph=True)
    total = sum((g * torch.linspace(-1, 2, g.numel()).view(g.shape).to(g)).sum() for g in first)
    return [out, *first, *torch.autograd.grad(total, (x, layer.weight, cotangent))]


def assert_orders(found, expected, tolerance):
    for result, right in zip(found, expected, strict=True):
        assert result.shape == right.shape
        assert not right.numel() or (
            result.detach().cpu().double() - right
        ).abs().max() < tolerance * right.abs().max().clamp(min=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("irreps", "correlation", "dtype"),
    [
        (IRREPS, 3, torch.float64),
        (("33x0e+33x1o", "33x1o+33x0e"), 2, torch.float32),
        (("5x0e+5x1o", "5x1o"), 1, torch.float64),
        (("1x0e+1x1o", "1x0e"), 4, torch.float64),
    ],
    ids=str,
)
def test_derivatives(device, irreps, correlation, dtype):
    layer = contraction(tuple(map(o3.Irreps, irreps)), correlation, dtype)
    x = features(layer.irreps_in, dtype)
    expected = all_orders(reference(layer), x.double(), ELEMENTS)
    found = all_orders(layer.to(device), x.to(device), ELEMENTS.to(device))
    assert_orders(found, expected, 1e-12 if dtype == torch.float64 else 1e-5)


@pytest.mark.cuda
def test_derivatives_of_the_largest_in_use():
    """MACE's, whose coefficients are many chunks of the kernel."""
    layer = contraction((o3.Irreps("2x0e+2x1o+2x2e+2x3o"), o3.Irreps("2x0e+2x1o+2x2e")))
    x = features(layer.irreps_in)
    expected = all_orders(reference(layer), x, ELEMENTS)
    assert_orders(all_orders(layer.cuda(), x.cuda(), ELEMENTS.cuda()), expected, 1e-12)


@pytest.mark.parametrize(
    ("irreps_in", "irreps_out"),
    [("0e+1o+2e+3o", "0e+1o+2e"), ("3o+0e+1o", "2e+1o"), ("4e+1o", "0e+2e"), ("1o+0o+0e", "1o+1e+0e"), ("2e+1o", "3o")],
)
def test_coefficients_lie_in_the_order_of_the_monomials(irreps_in, irreps_out):
    """So the kernel writes their gradients: a chunk's side by side."""
    irreps = o3.Irreps(irreps_in), o3.Irreps(irreps_out)
    problem = problem_of(describe.polynomial(*irreps, 3, ("mul_ir", "mul_ir")), "float32")
    walked = [(m.features, entry) for m in monomials(problem) for entry in m.entries]
    assert [entry.coefficient for _, entry in walked] == [(0, q) for q in range(len(walked))]
    for (found, entry), (monomial, slot, k) in zip(walked, polynomial_entries(*irreps, 3), strict=True):
        assert (sorted(found), entry.out) == (sorted(monomial), (slot, k))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("irreps", "correlation", "layout", "row_edges"),
    [
        (("3x0e+3x1o", "3x0e+3x1o"), 3, "mul_joined", 2),
        (("3x0e+3x1o", "3x1o"), 2, "mul_ir", 60),  # rounds of a row
        (("33x0e+33x1o", "33x1o"), 1, "ir_mul", None),
    ],
    ids=str,
)
def test_emulated_kernels(irreps, correlation, layout, row_edges):
    layer = contraction(tuple(map(o3.Irreps, irreps)), correlation, layout=layout)
    x, element = features(layer.irreps_in, rows=75), ELEMENTS.repeat(11)[:75]
    with emulated_gpu(row_edges=row_edges):
        found = all_orders(layer, x, element)
    assert_orders(found, all_orders(reference(layer), x, element), 1e-12)


def test_the_reference_has_derivatives_by_finite_differences():
    layer = reference(contraction((o3.Irreps("1x0e+1x1o"), o3.Irreps("1x1o")), 2))
    x = features(layer.irreps_in, rows=3).requires_grad_()
    assert torch.autograd.gradgradcheck(partial(layer, element=torch.tensor([0, 2, 2])), (x,))


SOME = st.lists(st.sampled_from(["0e", "0o", "1o", "1e", "2e"]), min_size=1, max_size=3, unique=True)


@pytest.mark.hypothesis
@examples(4)
@given(SOME, SOME, st.integers(1, 3), st.integers(1, 20), st.integers(0, 5), st.sampled_from(_symmetric.LAYOUTS))
def test_random_ones(irreps_in, irreps_out, correlation, channels, rows, layout):
    irreps = [o3.Irreps([(channels, ir) for ir in each]) for each in (irreps_in, irreps_out)]
    if not any(map(sum, paths_of(*irreps, correlation))):
        with pytest.raises(ValueError, match="no product"):
            contraction(irreps, correlation)
        return
    layer = contraction(irreps, correlation, layout=layout)
    x, element = features(layer.irreps_in, rows=rows), ELEMENTS[:rows]
    assert_orders(all_orders(layer, x, element), all_orders(reference(layer), x, element), 1e-12)


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_transforms(name):
    layer = contraction((o3.Irreps("2x0e+2x1o"), o3.Irreps("2x1o")), 2)
    x = (features(layer.irreps_in),)
    change, cotangent = (torch.roll(x[0], 1, 0),), torch.ones(len(ELEMENTS), 6, dtype=torch.float64)
    results = [
        TRANSFORMS[name](partial(each, element=ELEMENTS), x, change, cotangent) for each in (layer, reference(layer))
    ]
    torch.testing.assert_close(*results, rtol=1e-11, atol=1e-11)


def test_forces_do_not_compute_gradients_by_weights(monkeypatch):
    """Those are sums over all nodes, and parameters require gradients when forces are asked for, too."""
    layer, asked = contraction((o3.Irreps("2x0e+2x1o"), o3.Irreps("2x0e")), 2), []
    from pyg_cgconv.ops import _contract

    run = _contract.run
    monkeypatch.setattr(_contract, "run", lambda p, c, *rest: asked.append(c.spec) or run(p, c, *rest))
    x = features(layer.irreps_in).requires_grad_()
    torch.autograd.grad(layer(x.sin(), ELEMENTS).sum(), x)
    assert asked == ["g.c.x.x>g", "g.c.x.x>x"]
    layer(x, ELEMENTS).sum().backward()
    assert asked[2:] == ["g.c.x.x>g", "g.c.x.x>c,x"]


@pytest.mark.slow
def test_compiled_and_exported(tmp_path):
    layer = contraction((o3.Irreps("2x0e+2x1o"), o3.Irreps("2x1o")), 2)
    x = features(layer.irreps_in)
    expected = layer(x, ELEMENTS)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, ELEMENTS), expected)
    rows = torch.export.Dim("rows", min=2)
    torch.export.save(
        torch.export.export(layer, (x, ELEMENTS), dynamic_shapes=({0: rows}, {0: rows})), tmp_path / "layer.pt2"
    )
    program = torch.export.load(tmp_path / "layer.pt2").module()
    torch.testing.assert_close(program(x[:4], ELEMENTS[:4]), expected[:4])


def test_copies_and_other_dtypes():
    layer = contraction(dtype=torch.float32)
    x = features(IRREPS[0])
    other = copy.deepcopy(layer).double()
    other.load_state_dict(layer.state_dict())
    assert list(layer.state_dict()) == ["weight"]
    torch.testing.assert_close(other(x, ELEMENTS), reference(layer)(x, ELEMENTS), rtol=1e-12, atol=1e-12)


def test_elements_may_be_one_hot_for_nobody_but_say_so():
    layer, x = contraction(), features(IRREPS[0])
    with pytest.raises(ValueError, match=r"element: .* of one-hot elements \.argmax\(1\) makes them"):
        layer(x, torch.nn.functional.one_hot(ELEMENTS, 4).double())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(x=torch.zeros(7, 5)), r"x: expected shape \(n, 27\), got \(7, 5\)"),
        (dict(x=torch.zeros(7, 27)), r"x: dtype torch\.float32 differs from that of the weights, torch\.float64"),
        (dict(x=torch.zeros(7, 27).half()), r"x: dtype torch\.float16 has no kernel"),
        (dict(x=None), r"x: expected a tensor, got NoneType"),
        (dict(element=ELEMENTS + 1), r"element: expected numbers 0 to 3, got 1 to 4"),
        (dict(element=ELEMENTS[:3]), r"element: expected int64 or int32 numbers of elements \(7,\), got .*\(3,\)"),
    ],
)
def test_wrong_inputs_are_named(change, message):
    layer = contraction()
    inputs = dict(x=features(IRREPS[0]), element=ELEMENTS) | change
    with pytest.raises((TypeError, ValueError), match=message):
        layer(**inputs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("2x0e", "3x0e"), r"irreps_out: all irreps must have one multiplicity"),
        (("0x0e", "0x0e"), r"irreps_in: expected irreps such as"),
        (("2x0e", "2x0e", {"0e": 2}), r"correlation: expected 1 to 4, got \{"),
        (("2x0e", "2x0e", True), r"correlation: expected 1 to 4, got True"),
        (("2x0e+3x1o", "2x0e"), r"irreps_in: all irreps must have one multiplicity"),
        (("2x0e+2x0e", "2x0e"), r"irreps_in: expected each irrep once"),
        (("2x0e", "2x0e", 5), r"correlation: expected 1 to 4, got 5"),
        (("2x0e+2x3o", "2x0e", 4), r"irreps_in: with correlation 4 l may be up to 2"),
        (("2x0e", "2x1o"), r"irreps_out: no product of up to 3 of 2x0e is one of 2x1o"),
        (("2x0e", "2x0e", 3, 0), r"num_elements: expected a number of elements, 1 or more, got 0"),
        (("2x0e", ""), r"irreps_out: expected irreps such as"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SymmetricContraction(*arguments)


def test_a_batch_of_elements_under_vmap_is_refused_by_name():
    layer, x = contraction(), features(IRREPS[0])
    with pytest.raises(ValueError, match=r"^element: torch\.vmap over graphs has no kernel"):
        torch.vmap(lambda element: layer(x, element))(ELEMENTS.expand(2, -1))
