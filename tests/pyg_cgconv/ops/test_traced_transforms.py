"""The operation in traced programs under transforms, and transforms in programs that are traced."""

import pytest
import torch
from torch.func import grad, hessian, jacrev, jvp, linearize, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from tests.pyg_cgconv.ops.test_transforms import assert_equal, both, on_graph, problem
from tests.transforms import TRANSFORMS, squared

pytestmark = pytest.mark.thorough


@pytest.fixture
def functions():
    """The convolution and the same on the reference backend, as functions of x, edge_attr and weight; three of these,
    and changes of them."""
    fused, reference = both()
    inputs, changes, edge_index = problem(fused)
    return [on_graph(layer, edge_index) for layer in (fused, reference)], inputs, changes


def compiled(f):
    torch._dynamo.reset()
    return torch.compile(f, backend="aot_eager")


@pytest.mark.parametrize("name", sorted(set(TRANSFORMS) - {"batched_cotangents", "batched_second_derivatives"}))
def test_every_transform_of_a_traced_program(functions, name):
    (fused, reference), inputs, changes = functions
    program = make_fx(lambda *x: fused(*x))(*inputs)
    cotangent = torch.randn(4, fused(*inputs).shape[1], dtype=torch.float64)
    results = TRANSFORMS[name](lambda *x: program(*x), inputs, changes, cotangent)
    assert_equal(results, TRANSFORMS[name](reference, inputs, changes, cotangent))


@pytest.mark.parametrize(
    "transform",
    [
        lambda f: grad(squared(f), (0, 1, 2)),
        lambda f: lambda *x: vmap(f)(*[torch.stack([t, 2 * t]) for t in x]),
        lambda f: lambda *x: vmap(grad(squared(f)))(*[torch.stack([t, 2 * t]) for t in x]),
        lambda f: jacrev(jacrev(squared(f))),
        lambda f: lambda *x: jvp(f, x, x)[1],
    ],
    ids=["grad", "vmap", "vmap of grad", "jacrev of jacrev", "jvp"],
)
@pytest.mark.parametrize("trace", [lambda f, x: make_fx(f)(*x), lambda f, x: compiled(f)], ids=["make_fx", "compile"])
def test_a_transform_within_a_traced_program(functions, trace, transform):
    (fused, reference), inputs, changes = functions
    assert_equal(trace(transform(fused), inputs)(*changes), transform(reference)(*changes))


def test_transforms_of_a_compiled_function(functions):
    (fused, reference), inputs, changes = functions

    def results(f):
        two = [torch.stack([t, 2 * t]) for t in inputs]
        return [jvp(f, tuple(inputs), tuple(changes))[1], vmap(f)(*two), *grad(squared(f), (0, 1, 2))(*inputs)]

    assert_equal(results(compiled(fused)), results(reference))


def test_an_exported_program_has_tangents(functions):
    (fused, reference), inputs, changes = functions

    class Module(torch.nn.Module):
        def forward(self, *x):
            return fused(*x)

    program = torch.export.export(Module(), tuple(inputs)).module()
    assert_equal(*[jvp(f, tuple(inputs), tuple(changes))[1] for f in (lambda *x: program(*x), reference)])


def test_transforms_of_a_linearized_function(functions):
    (fused, reference), inputs, changes = functions

    def results(f):
        push = linearize(f, *inputs)[1]
        two = [torch.stack([t, 2 * t]) for t in changes]
        return [vmap(push)(*two), grad(lambda c: push(c, *changes[1:]).square().sum())(changes[0])]

    assert_equal(results(fused), results(reference))


def test_a_hessian_of_a_program_that_foresaw_no_derivatives(functions):
    (fused, reference), inputs, _ = functions
    program = make_fx(lambda *x: fused(*x))(*inputs)
    assert_equal(hessian(squared(lambda *x: program(*x)))(*inputs), hessian(squared(reference))(*inputs))
