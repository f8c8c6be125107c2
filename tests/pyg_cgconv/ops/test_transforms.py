"""Transforms of torch.func, and autograd's own, of the convolution against e3nn in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap
from torch_geometric import EdgeIndex

from pyg_cgconv import Edges, TensorProductConv
from tests.problems import error
from tests.random_examples import examples
from tests.random_products import cases
from tests.transforms import TRANSFORMS, squared

IRREPS = ("3x0e+2x1o", "0e+1o", "0e+1o")
OPTIONS = {
    "plain": {},
    "shared": {"shared_weights": True},
    "mean": {"aggr": "mean", "layout": "ir_mul"},
    "shared mean": {"aggr": "mean", "shared_weights": True},
}


def both(**options):
    return [TensorProductConv(*IRREPS, **options, backend=backend) for backend in ("auto", "reference")]


def problem(layer, sources=3, targets=4, edges=5, device="cpu", seed=0):
    """x, edge_attr, weight; a change of each; edge_index."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device)

    weight = (layer.weight_numel,) if layer.shared_weights else (edges, layer.weight_numel)
    shapes = (sources, layer.irreps_in.dim), (edges, layer.irreps_edge.dim), weight
    ends = [torch.randint(max(1, n), (edges,), generator=generator) for n in (sources, targets)]
    edge_index = torch.stack(ends).to(device)
    return [random(*shape) for shape in shapes], [random(*shape) for shape in shapes], edge_index


def on_graph(layer, edge_index, size=(3, 4)):
    return lambda x, edge_attr, weight: layer((x, None), edge_index, edge_attr, weight, size)


def assert_equal(results, expected, tolerance=1e-11):
    results, expected = ([t] if isinstance(t, torch.Tensor) else list(t) for t in (results, expected))
    errors = [error(a, b.cpu()) for a, b in zip(results, expected, strict=True)]
    assert max(errors) < tolerance, errors


@st.composite
def transformed_cases(draw):
    """A problem, which of its inputs are varied, and transforms: these share most kernels, whose compilation takes the
    time."""
    case = draw(cases(max_l=2, most=5, on_graph=True))
    names = draw(st.lists(st.sampled_from(sorted(TRANSFORMS)), min_size=4, max_size=4, unique=True))
    inputs = [0, 1, 2] if case.weight.shape[-1] else [0, 1]
    return case, sorted(draw(st.sets(st.sampled_from(inputs), min_size=1))), names


@pytest.mark.slow
@examples(4, long=60)
@given(drawn=transformed_cases())
def test_random_problems(device, drawn):
    case, varied, names = drawn
    generator = torch.Generator().manual_seed(1)
    fused, reference = case.layer(), case.layer(backend="reference")
    inputs = [t.detach() for t in case.inputs()]
    changes = [torch.randn(t.shape, generator=generator, dtype=torch.float64) for t in inputs]
    cotangent = torch.randn(case.targets, case.irreps_out.dim, generator=generator, dtype=torch.float64)

    def evaluated(name, layer, where):
        fixed, edge_index = [t.to(where) for t in inputs], case.edge_index.to(where)

        def f(*values):
            x, edge_attr, weight = (dict(enumerate(fixed)) | dict(zip(varied, values, strict=True))).values()
            return layer((x, None), edge_index, edge_attr, weight, size=case.size)

        given = [fixed[n] for n in varied], [changes[n].to(where) for n in varied], cotangent.to(where)
        return TRANSFORMS[name](f, *given)

    for name in names:
        results, expected = evaluated(name, fused, device), evaluated(name, reference, "cpu")
        errors = [error(a, b) for a, b in zip(results, expected, strict=True)]
        assert max(errors) < 1e-11, (name, varied, errors)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TRANSFORMS))
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_transform(device, name, options):
    fused, reference = both(**options)
    inputs, changes, edge_index = problem(fused, device=device)
    cotangent = torch.randn(4, fused.irreps_out.dim, dtype=torch.float64, device=device)
    functions = [on_graph(layer, edge_index) for layer in (fused, reference)]
    assert_equal(*[TRANSFORMS[name](f, inputs, changes, cotangent) for f in functions])


@pytest.mark.parametrize("shared_weights", [False, True])
@pytest.mark.parametrize("varied", [(0, None, None), (None, 1, None), (None, None, -1), (1, None, 0), (None, 0, 0)])
def test_vmap_of_any_of_the_inputs(device, varied, shared_weights):
    fused, reference = both(shared_weights=shared_weights)
    inputs, changes, edge_index = problem(fused, device=device)
    arguments = [
        t if dim is None else torch.stack([t, t + change, change], dim)
        for t, change, dim in zip(inputs, changes, varied, strict=True)
    ]

    def results(layer):
        f = on_graph(layer, edge_index)
        return [vmap(f, varied)(*arguments), *vmap(grad(squared(f), (0, 1, 2)), varied)(*arguments)]

    assert_equal(results(fused), results(reference))


@pytest.mark.parametrize("shared_weights", [False, True])
def test_jacobians_and_hessians(device, shared_weights):
    fused, reference = both(shared_weights=shared_weights)
    inputs, _, edge_index = problem(fused, device=device)

    def results(layer):
        f = on_graph(layer, edge_index)
        rows = hessian(squared(f), (0, 1, 2))(*inputs)
        return [
            *jacrev(f, (0, 1, 2), chunk_size=7)(*inputs),
            *jacfwd(f, (0, 1, 2))(*inputs),
            *(block for row in rows for block in row),
        ]

    assert_equal(results(fused), results(reference))


@pytest.mark.parametrize("strategy", ["reverse-mode", "forward-mode"])
def test_vectorized_jacobians_and_hessians_of_autograd(device, strategy):
    fused, reference = both()
    inputs, _, edge_index = problem(fused, device=device)

    def results(layer):
        f = on_graph(layer, edge_index)
        rows = torch.autograd.functional.hessian(
            squared(f), tuple(inputs), vectorize=True, outer_jacobian_strategy=strategy
        )
        jacobian = torch.autograd.functional.jacobian(f, tuple(inputs), vectorize=True, strategy=strategy)
        return [*jacobian, *(block for row in rows for block in row)]

    assert_equal(results(fused), results(reference))


def test_a_vmapped_hessian_of_retained_gradients(device):
    fused, reference = both()
    inputs, _, edge_index = problem(fused, device=device)

    def rows(layer):
        x = inputs[0].clone().requires_grad_()
        slope = torch.autograd.grad(squared(on_graph(layer, edge_index))(x, *inputs[1:]), x, create_graph=True)[0]
        unit = torch.eye(x.numel(), dtype=torch.float64, device=device).view(-1, *x.shape)
        return vmap(lambda v: torch.autograd.grad(slope, x, v, retain_graph=True)[0], chunk_size=4)(unit)

    assert_equal(rows(fused), rows(reference))


def test_gradients_of_each_sample_by_the_parameters_of_a_radial_network(device):
    fused, reference = both()
    (x, edge_attr, _), _, edge_index = problem(fused, device=device)
    network = torch.nn.Linear(2, fused.weight_numel, dtype=torch.float64, device=device)
    lengths = torch.randn(3, 5, 2, dtype=torch.float64, device=device)

    def results(layer):
        def loss(parameters, lengths):
            weight = functional_call(network, parameters, (lengths,))
            return squared(on_graph(layer, edge_index))(x, edge_attr, weight)

        return vmap(grad(loss), (None, 0))(dict(network.named_parameters()), lengths).values()

    assert_equal(results(fused), results(reference))


NEWER = pytest.mark.skipif(
    torch.__version__ < "2.13", reason="torch.func keeps no tensors of inference mode before PyTorch 2.13"
)


@pytest.mark.parametrize("mode", [torch.no_grad, pytest.param(torch.inference_mode, marks=NEWER)])
def test_transforms_where_gradients_are_switched_off(device, mode):
    fused, reference = both()
    inputs, changes, edge_index = problem(fused, device=device)
    with mode():
        assert_equal(
            *[
                [*grad(squared(f), (0, 1, 2))(*inputs), *jvp(f, tuple(inputs), tuple(changes))]
                for f in (on_graph(layer, edge_index) for layer in (fused, reference))
            ]
        )


def given_edges(edge_index):
    order = edge_index[1].argsort(stable=True)
    return {
        "Edges": Edges(edge_index, 3, 4),
        "EdgeIndex": EdgeIndex(edge_index, sparse_size=(3, 4)),
        "int32": edge_index.int(),
        "a view": edge_index[:, order][:, order.argsort()],
    }


@pytest.mark.parametrize("form", ["Edges", "EdgeIndex", "int32", "a view"])
def test_any_form_of_graph_under_vmap_of_grad(device, form):
    layer, _ = both()
    (x, *others), (change, *_), edge_index = problem(layer, device=device)
    of = lambda edges: grad(lambda x: squared(on_graph(layer, edges))(x, *others))  # noqa: E731
    expected = torch.stack([of(edge_index)(x), of(edge_index)(change)])
    assert_equal(vmap(of(given_edges(edge_index)[form]))(torch.stack([x, change])), expected)


@pytest.mark.parametrize("make", [lambda edges: edges, lambda edges: Edges(edges, 3, 4), lambda edges: edges.flip(1)])
def test_edges_that_are_an_argument_or_made_within_the_function(device, make):
    layer, reference = both()
    (x, edge_attr, weight), (change, *_), edge_index = problem(layer, device=device)

    def slope(layer):
        def f(x, edge_index):
            return squared(on_graph(layer, make(edge_index)))(x, edge_attr, weight)

        mapped = vmap(grad(f), (0, None))(torch.stack([x, change]), edge_index)
        return [mapped, jvp(lambda x: grad(f)(x, edge_index), (x,), (change,))[1]]

    assert_equal(slope(layer), slope(reference))


def test_vmap_over_graphs_is_refused_by_name():
    layer, _ = both()
    inputs, _, edge_index = problem(layer)
    with pytest.raises(ValueError, match=r"edge_index: torch\.vmap over graphs has no kernel; put the graphs side by"):
        vmap(lambda edges: on_graph(layer, edges)(*inputs))(torch.stack([edge_index, edge_index]))


@pytest.mark.parametrize(
    "transform",
    [
        grad,
        hessian,
        lambda f: lambda x: vmap(f)(x[None]),
        lambda f: lambda x: jvp(f, (x,), (x,)),
        lambda f: lambda x: vmap(grad(f))(x[None]),
    ],
    ids=["grad", "hessian", "vmap", "jvp", "vmap of grad"],
)
@pytest.mark.parametrize("is_argument", [False, True])
def test_a_transform_that_fails_leaves_nothing_behind(device, transform, is_argument):
    layer, reference = both()
    inputs, _, edge_index = problem(layer, device=device)

    def broken(x, edges=edge_index):
        on_graph(layer, edges)(x, *inputs[1:])
        raise KeyError

    def call():
        if is_argument:
            return grad(lambda x, edges: transform(lambda x: broken(x, edges))(x))(inputs[0], edge_index)
        return transform(broken)(inputs[0])

    with pytest.raises(KeyError):
        call()
    leaves = [t.clone().requires_grad_() for t in inputs]
    of = [torch.autograd.grad(squared(on_graph(either, edge_index))(*leaves), leaves) for either in (layer, reference)]
    assert_equal(*of)


@pytest.mark.parametrize("size", [(3, 4, 0), (0, 0, 0), (3, 0, 0)])
@pytest.mark.parametrize("shared_weights", [False, True])
def test_empty_graphs_and_empty_batches(device, size, shared_weights):
    layer, _ = both(shared_weights=shared_weights)
    inputs, changes, edge_index = problem(layer, *size, device=device)
    f = on_graph(layer, edge_index, size[:2])
    out = (size[1], layer.irreps_out.dim)
    for jacobian, x in zip(jacrev(f, (0, 1, 2))(*inputs), inputs, strict=True):
        assert jacobian.shape == (*out, *x.shape)
        assert not jacobian.any()
    assert jvp(f, tuple(inputs), tuple(changes))[1].shape == out
    assert vmap(f)(*[x[None] for x in inputs]).shape == (1, *out)
    assert vmap(grad(squared(f)))(*[x.new_zeros(0, *x.shape) for x in inputs]).shape == (0, *inputs[0].shape)


def test_a_product_without_weights(device):
    paths = [(0, 1, 0, "uvu", False), (1, 0, 0, "uvu", False)]
    fused, reference = (
        TensorProductConv("2x0e+2x1o", "0e+1o", "2x1o", paths, backend=backend) for backend in ("auto", "reference")
    )
    inputs, changes, edge_index = problem(fused, device=device)
    of = [jvp(on_graph(layer, edge_index), tuple(inputs), tuple(changes)) for layer in (fused, reference)]
    assert_equal(*of)
    by_weight = jvp(lambda w: on_graph(fused, edge_index)(*inputs[:2], w), (inputs[2],), (changes[2],))[1]
    assert not by_weight.any()


def zeros(tensor):
    return torch._efficientzerotensor(tensor.shape, dtype=tensor.dtype, device=tensor.device)


@pytest.mark.parametrize("make", [zeros, torch._neg_view], ids=["zeros", "negative"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_tensors_without_memory_of_their_own(device, make, which):
    layer, _ = both()
    inputs, changes, edge_index = problem(layer, device=device)
    f = on_graph(layer, edge_index)
    replaced, expected = list(inputs), list(inputs)
    replaced[which] = make(inputs[which])
    expected[which] = replaced[which].clone() if make is zeros else -inputs[which]
    assert_equal(f(*replaced), f(*expected))
    tangent = list(changes)
    tangent[which] = make(changes[which])
    exact = list(changes)
    exact[which] = torch.zeros_like(changes[which]) if make is zeros else -changes[which]
    assert_equal(*[jvp(f, tuple(inputs), tuple(t)) for t in (tangent, exact)])


@pytest.mark.parametrize("make", [zeros, torch._neg_view], ids=["zeros", "negative"])
def test_cotangents_without_memory_of_their_own(device, make):
    layer, _ = both()
    inputs, changes, edge_index = problem(layer, device=device)
    leaves = [t.clone().requires_grad_() for t in inputs]
    out = on_graph(layer, edge_index)(*leaves)
    cotangents = [torch.ones_like(out), *changes]

    def results(chosen):
        first = torch.autograd.grad(out, leaves, chosen[0], create_graph=True)
        return [*first, *torch.autograd.grad(first, leaves, chosen[1:], allow_unused=True, materialize_grads=True)]

    sign = 0 if make is zeros else -1
    assert_equal(results([make(c) for c in cotangents]), results([sign * c for c in cotangents]))
