import pytest

from cuda_kernels.passes import owned_passes, single_pass, zeroed_outputs
from cuda_kernels.problem import Index
from pyg_cgconv.nn import NodeProducts
from pyg_cgconv.tensor_product import problem_of
from tests.problems import BACKWARD, DOUBLE_BACKWARD, FORWARD, named

PROBLEM = named("nequip-water").problem


@pytest.mark.parametrize("contraction", [FORWARD, BACKWARD, DOUBLE_BACKWARD], ids=lambda c: c.spec)
def test_passes_share_out_the_outputs_by_owner(contraction):
    passes = owned_passes(PROBLEM, contraction)
    assert sorted(o for _, part in passes for o in part.outputs) == sorted(contraction.outputs)
    for by, part in passes:
        assert {PROBLEM.operand(o).index for o in part.outputs} <= {by, Index.EDGE}


def test_a_backward_is_one_pass():
    assert [by for by, _ in owned_passes(PROBLEM, BACKWARD)] == [Index.SOURCE]


def test_a_product_without_a_graph_walks_its_rows():
    problem = problem_of(NodeProducts("2x0e+2x1o", 2, "0e+1o")._description, "float32")
    contraction = owned_passes(problem, single_pass(problem, FORWARD)[0].contraction)
    assert [by for by, _ in contraction] == [Index.EDGE]


@pytest.mark.parametrize(
    ("contraction", "by", "zeroed"),
    [
        (FORWARD, Index.TARGET, []),
        (BACKWARD, Index.TARGET, ["x"]),  # added atomically
        (BACKWARD, Index.SOURCE, []),
        (DOUBLE_BACKWARD, Index.TARGET, ["x"]),
        (DOUBLE_BACKWARD, Index.SOURCE, ["g"]),
    ],
)
def test_outputs_that_a_pass_adds_to_are_zeroed(contraction, by, zeroed):
    assert zeroed_outputs(PROBLEM, contraction, by) == zeroed
