"""Random products, on graphs and of rows, and their derivatives of any order, against e3nn in float64."""

import pytest
import torch
from e3nn import o3
from hypothesis import given
from hypothesis import strategies as st
from torch.func import grad, jvp

from tests.problems import Case, error, fill
from tests.random_examples import examples
from tests.random_products import Derivatives, problems

pytestmark = pytest.mark.filterwarnings("error:.*which is slow")

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2**-8, torch.float16: 2**-10}
"""Relative errors of results; those of half precision are rounded once."""


def derivatives(function, inputs, wanted: Derivatives):
    """The output, then for each order the derivatives of the inner product of the order before with fixed random
    cotangents."""
    by = {number for order in wanted.orders for number in order}
    variables = [t.detach().requires_grad_(n in by) for n, t in enumerate(inputs)]
    dtypes, generator = list(wanted.dtypes[: len(inputs)]), torch.Generator().manual_seed(1)
    outputs, of_outputs = [function(*variables)], wanted.dtypes[:1]
    results = [("out", wanted.dtypes[0], outputs[0])]
    for chosen in wanted.orders:
        random = [torch.randn(t.shape, generator=generator, dtype=torch.float64) for t in outputs]
        rounded = [t.to(dtype) for t, dtype in zip(random, of_outputs, strict=True)]
        cotangents = [c.to(t).requires_grad_() for c, t in zip(rounded, outputs, strict=True)]
        inner = sum((t * c).sum() for t, c in zip(outputs, cotangents, strict=True))
        leaves = [variables[n] for n in chosen]
        variables, dtypes, before = variables + cotangents, [*dtypes, *of_outputs], dtypes
        outputs = torch.autograd.grad(inner, leaves, create_graph=True, allow_unused=True, materialize_grads=True)
        of_outputs = [before[n] for n in chosen]
        results += [(f"by {n} of {chosen}", dtype, t) for n, dtype, t in zip(chosen, of_outputs, outputs, strict=True)]
    return results


def check(case: Case, wanted: Derivatives, device) -> None:
    number = 3 if case.weight.shape[-1] else 2
    options = {"deterministic": wanted.deterministic} if case.on_graph else {}
    stored = [t.detach().to(dtype) for t, dtype in zip(case.inputs(), wanted.dtypes, strict=True)][:number]
    found = derivatives(case.computed(device, **options), [t.to(device) for t in stored], wanted)
    expected = derivatives(case.oracle, [t.double() for t in stored], wanted)
    for (name, dtype, result), (_, _, exact) in zip(found, expected, strict=True):
        assert result.dtype == dtype
        assert error(result, exact) < TOLERANCE[dtype], (name, dtype)


def compare(case: Case, device, dtype, deterministic: bool = False) -> None:
    """All derivatives of first and second order."""
    inputs = (0, 1, 2) if case.weight.shape[-1] else (0, 1)
    check(case, Derivatives((dtype,) * 3, (inputs, (*inputs, len(inputs))), deterministic), device)


@pytest.mark.parametrize("on_graph", [True, False], ids=["graph", "rows"])
@examples(30)
@given(data=st.data())
def test_random_problems(device, on_graph, data):
    check(*data.draw(problems(on_graph=on_graph)), device)


@pytest.mark.thorough
def test_high_degrees(device):
    instructions = [(0, 0, 0, "uvu", True), (1, 1, 1, "uvu", True), (0, 1, 2, "uvu", True)]
    irreps = (o3.Irreps("5x4e+3x6o"), o3.Irreps("4e+3o"), o3.Irreps("5x8e+3x3e+5x6o"))
    case = Case(*irreps, instructions, "mul_ir", False, *[None] * 4, targets=4)
    fill(case, sources=3, edges=9, seed=0)
    compare(case, device, torch.float64)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("mode", "irreps_edge", "shared_weights"),
    [
        ("uvu", "1o", False),
        ("uvw", "1o", True),
        ("uvw", "1o", False),
        ("uuu", "2x1o", False),
    ],
)
def test_second_and_third_derivatives_are_slopes(device, mode, irreps_edge, shared_weights):
    """A Hessian and a third derivative, times the same change of all inputs, against finite differences."""
    irreps = o3.Irreps("2x1o"), o3.Irreps(irreps_edge), o3.Irreps("2x1e")
    paths = [(0, 0, 0, mode, True)]
    case = Case(*irreps, paths, "mul_ir", shared_weights, *[None] * 4, targets=2)
    fill(case, sources=2, edges=4, seed=0)
    inputs = tuple(t.detach() for t in case.inputs(device))
    generator = torch.Generator().manual_seed(1)
    changes = tuple(torch.randn(t.shape, generator=generator, dtype=torch.float64).to(device) for t in inputs)
    product = case.computed(device)

    def gradient(*inputs):
        return torch.cat([g.flatten() for g in grad(lambda *x: product(*x).pow(3).sum(), (0, 1, 2))(*inputs)])

    def changed(function):
        return lambda *inputs: jvp(function, inputs, changes)[1]

    def slope(function, step=1e-5):
        ahead, behind = ([t + sign * step * c for t, c in zip(inputs, changes, strict=True)] for sign in (1, -1))
        return (function(*ahead) - function(*behind)) / (2 * step)

    assert error(changed(gradient)(*inputs), slope(gradient)) < 1e-8
    assert error(changed(changed(gradient))(*inputs), slope(changed(gradient))) < 1e-8
