import pytest

from cuda_kernels.cuda.schedule import segments
from cuda_kernels.cuda.segment import REGISTERS
from cuda_kernels.passes import Pass
from cuda_kernels.problem import LEFT, Index
from pyg_cgconv.benchmark.problems import PROBLEMS
from tests.problems import BACKWARD, DOUBLE_BACKWARD, named


@pytest.mark.parametrize(
    ("capability", "budget"), [((8, 0), REGISTERS), ((8, 6), REGISTERS), ((9, 0), REGISTERS), ((9, 0), 90)]
)
@pytest.mark.parametrize("by", [Index.TARGET, Index.SOURCE])
@pytest.mark.parametrize("name", PROBLEMS)
def test_segments_hold_every_path_once(name, by, capability, budget):
    problem = named(name).problem
    cut = segments(problem, Pass(by, DOUBLE_BACKWARD), capability, budget)
    assert sorted(n for segment in cut for n in segment.paths) == list(range(len(problem.paths)))
    assert all(segment.registers <= budget or len(segment.paths) == 1 for segment in cut)
    assert all(segment.fits and segment.stages >= 2 for segment in cut)
    assert [segment.first for segment in cut] == [True] + [False] * (len(cut) - 1)
    assert all(len({problem.multiplicity(problem.paths[n]) for n in segment.paths}) == 1 for segment in cut)


def test_only_the_first_segment_of_a_block_overwrites_it():
    problem = named("nequip-benzene").problem
    written = set()
    for segment in segments(problem, Pass(Index.SOURCE, BACKWARD), (9, 0), 90):
        blocks = {("x", problem.paths[n].blocks[LEFT]) for n in segment.paths}
        assert segment.adds == blocks & written
        written |= blocks
    assert written == {("x", block) for block in range(len(problem.row("x").blocks))}
