"""Counted arithmetic against what can be counted by hand."""

import pytest

from cuda_kernels.operations import multiply_adds
from cuda_kernels.problem import Path, channel_row, copies_row, weight_row
from tests.problems import BACKWARD, FORWARD, convolution, named


@pytest.mark.parametrize("multiplicity", [1, 7, 64])
def test_scalars(multiplicity):
    scalars = [(multiplicity, 1)]
    problem = convolution(
        x=channel_row(scalars, "ir_mul"),
        y=copies_row([(1, 1)], "ir_mul"),
        w=weight_row(scalars),
        g=channel_row(scalars, "ir_mul"),
        paths=(Path((0, 0, 0, 0), ((0, 0, 0, 1.0),)),),
        dtype="float32",
    )
    assert multiply_adds(problem, FORWARD) == 2 * multiplicity  # g += (w x) y
    # dy += g (w x) of two products; s = g y; dx += w s; dw = x s
    assert multiply_adds(problem, BACKWARD) == 5 * multiplicity


@pytest.mark.parametrize("name", ["mace-large", "nequip-toluene", "sevennet-l3i5"])
def test_forward_needs_no_more_than_a_matrix_product_of_each_path(name):
    problem = named(name).problem
    products = sum(
        problem.multiplicity(path)
        * (len({i for i, _, _, _ in path.coefficients}) + len({(i, k) for i, _, k, _ in path.coefficients}))
        for path in problem.paths
    )
    assert 0.8 * products < multiply_adds(problem, FORWARD) <= products
