import pytest

from cuda_kernels.polynomial import BACKWARD, DOUBLE_BACKWARD, FORWARD, kind
from cuda_kernels.schedule import owned_passes, segments
from cuda_kernels.segment import REGISTERS
from pyg_cgconv.benchmark.problems import PROBLEMS
from tests.problems import named


@pytest.mark.parametrize(
    ("capability", "budget"), [((8, 0), REGISTERS), ((8, 6), REGISTERS), ((9, 0), REGISTERS), ((9, 0), 90)]
)
@pytest.mark.parametrize("owner", ["g", "x"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_segments_hold_every_path_once(name, owner, capability, budget):
    problem = named(name).problem
    cut = segments(problem, DOUBLE_BACKWARD, owner, capability, budget)
    assert sorted(n for segment in cut for n in segment.paths) == list(range(len(problem.paths)))
    assert all(segment.registers <= budget or len(segment.paths) == 1 for segment in cut)
    assert all(segment.fits and segment.stages >= 2 for segment in cut)
    assert [segment.first for segment in cut] == [True] + [False] * (len(cut) - 1)
    assert all(len({problem.multiplicity(problem.paths[n]) for n in segment.paths}) == 1 for segment in cut)


def test_only_the_first_segment_of_a_block_overwrites_it():
    problem = named("nequip-benzene").problem
    written = set()
    for segment in segments(problem, BACKWARD, "x", (9, 0), 90):
        blocks = {problem.paths[n].x for n in segment.paths}
        assert segment.adds == blocks & written
        written |= blocks
    assert written == set(range(len(problem.x.blocks)))


@pytest.mark.parametrize("contraction", [FORWARD, BACKWARD, DOUBLE_BACKWARD], ids=lambda c: c.spec)
def test_passes_share_out_the_outputs_by_owner(contraction):
    passes = owned_passes(contraction)
    assert sorted(o for _, part in passes for o in part.outputs) == sorted(contraction.outputs)
    for owner, part in passes:
        assert {kind(o) for o in part.outputs} <= {owner, "y", "w"}


def test_a_backward_is_one_pass():
    assert [owner for owner, _ in owned_passes(BACKWARD)] == ["x"]
