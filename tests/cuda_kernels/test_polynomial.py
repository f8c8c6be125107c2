"""Contractions and their arithmetic against automatic differentiation of M(g, x, y, w) written as an einsum."""

import pytest
import torch

from cuda_kernels.contraction import Contraction
from cuda_kernels.polynomial import evaluate_path, matrices
from cuda_kernels.problem import Path
from cuda_kernels.problem import base as kind
from tests.problems import BACKWARD, DOUBLE_BACKWARD, FORWARD

TRIPLE, _ = DOUBLE_BACKWARD.derivative(("g", "x", "y", "w"), DOUBLE_BACKWARD.inputs)
CONTRACTIONS = [
    FORWARD,
    BACKWARD,
    BACKWARD.restricted(["w"]),
    DOUBLE_BACKWARD,
    DOUBLE_BACKWARD.restricted(["g", "y"]),
    BACKWARD.derivative(("x",), ("g", "w"))[0],
    TRIPLE,
]


class TensorArithmetic:
    """Numbers are tensors (channels,) or scalars; None is zero."""

    def constant(self, value):
        return torch.tensor(value, dtype=torch.float64)

    def mul(self, a, b):
        return a * b

    def add(self, a, b):
        return a if b is None else a + b

    def fma(self, a, b, c):
        return a * b if c is None else a * b + c

    def negate(self, a):
        return -a


@pytest.mark.parametrize("dims", [(3, 3, 5), (5, 1, 5), (2, 5, 2), (5, 3, 1)], ids=str)
@pytest.mark.parametrize("with_matrices", [True, False], ids=["matrices", "no matrices"])
@pytest.mark.parametrize("weighted", [True, False], ids=["weighted", "unweighted"])
@pytest.mark.parametrize("contraction", CONTRACTIONS, ids=lambda c: c.spec)
def test_outputs_are_derivatives_of_the_sum_of_terms(contraction, weighted, with_matrices, dims):
    """The shapes make each of the three forms of the output the cheapest one once."""
    generator = torch.Generator().manual_seed(0)
    c = torch.randint(-2, 3, dims, generator=generator).double() + torch.randn(dims, generator=generator).double()
    c = torch.where(c.abs() < 1, c.round(), c)  # ones, zeros and others
    dims, channels = dict(zip("xygw", (*dims, 1), strict=True)), 4
    coefficients = tuple((i, j, k, c[i, j, k].item()) for i, j, k in c.nonzero().tolist())
    path = Path((0, 0, 0, 0 if weighted else None), coefficients)
    operands = {o for term in contraction.terms for o in term}
    values = {
        o: torch.randn(dims[kind(o)], *[channels] * (kind(o) != "y"), generator=generator, dtype=torch.float64)
        for o in sorted(operands)
    }

    def weight(operand):
        if weighted:
            return values[operand][0]
        return torch.full((channels,), 1.0 if operand == "w" else 0.0, dtype=torch.float64)

    for value in values.values():
        value.requires_grad_()
    total = sum(
        torch.einsum("ijk,ku,iu,j,u->", c, values[g], values[x], values[y], weight(w))
        for g, x, y, w in contraction.terms
    )
    outputs = [o for o in contraction.outputs if weighted or kind(o) != "w"]
    expected = torch.autograd.grad(total, [values[o] for o in outputs], allow_unused=True) if outputs else []

    def read(element):
        operand, _, component = element
        assert operand in contraction.inputs
        return values[operand].detach()[component]

    sums = {}
    arithmetic = TensorArithmetic()
    matrix = matrices(path, contraction, read, arithmetic) if with_matrices else None
    evaluate_path(path, contraction, read, sums, arithmetic, matrix)
    assert {o for o, _, _ in sums} <= set(outputs)
    for output, gradient in zip(outputs, expected, strict=True):
        for component in range(dims[kind(output)]):
            result = sums.get((output, 0, component), torch.zeros(()))
            result = result.sum() if kind(output) == "y" else result
            wanted = torch.zeros(()) if gradient is None else gradient[component]
            torch.testing.assert_close(result.expand(wanted.shape).double(), wanted.double(), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("contraction", CONTRACTIONS, ids=lambda c: c.spec)
def test_names_read_back(contraction):
    assert Contraction.parse(contraction.spec) == contraction


def test_the_double_backward_is_the_one_in_the_books():
    assert DOUBLE_BACKWARD.spec == "g.x1.y.w+g.x.y1.w+g.x.y.w1>g,x,y,w"
    assert DOUBLE_BACKWARD.inputs == ("g", "x", "x1", "y", "y1", "w", "w1")


def test_inputs_that_no_output_depends_on_are_not_asked_for():
    assert FORWARD.inputs == ("x", "y", "w")
    assert BACKWARD.restricted(["w"]).inputs == ("g", "x", "y")


def test_a_cotangent_never_takes_the_name_of_the_weights_themselves():
    """On a path without weights, "w" means one and its cotangents mean zero."""
    _, names = BACKWARD.restricted(["w"]).derivative(("w",), ("x",))
    assert names == {"w": "w1"}
