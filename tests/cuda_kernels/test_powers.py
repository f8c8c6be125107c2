"""Counted arithmetic of polynomials against what can be counted by hand."""

import pytest
from e3nn import o3

from cuda_kernels.contraction import backward, forward
from cuda_kernels.powers import multiply_adds
from pyg_cgconv.tensor_product import describe, problem_of


@pytest.mark.parametrize("channels", [1, 7, 64])
def test_a_polynomial_of_a_scalar(channels):
    scalars = o3.Irreps([(channels, (0, 1))])
    problem = problem_of(describe.polynomial(scalars, scalars, 3, ("ir_mul", "ir_mul")), "float32")
    assert multiply_adds(problem, forward(problem)) == 3 * channels  # ((c3 x + c2) x + c1) x


def test_the_gradients_of_a_product():
    irreps = o3.Irreps("5x0e")
    problem = problem_of(describe.polynomial(irreps, irreps, 1, ("ir_mul", "ir_mul")), "float32")
    assert multiply_adds(problem, backward(problem)) == 2 * 5  # dc += g x; dx = g c
