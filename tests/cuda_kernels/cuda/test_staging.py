"""The copies of a stage, carried out lane by lane on numbered rows: every element must be found where the plan says."""

import numpy as np
import pytest

from cuda_kernels.cuda.staging import LANES, plan
from cuda_kernels.problem import Path, Problem, channel_row, copies_row, weight_row
from tests.problems import convolution


def problem(layout: str, multiplicity: int, dtype: str, copies: int = 1) -> Problem:
    coefficients = ((0, 0, 0, 1.0),)
    shapes = [(multiplicity, 3), (7, 1), (multiplicity, 5)]
    return convolution(
        x=channel_row(shapes, layout),
        y=copies_row([(copies, 3), (1, 5)], layout),
        w=weight_row([(multiplicity, copies), (multiplicity, 1)]),
        g=channel_row(shapes, layout),
        paths=(Path((0, 0, 0, 0), coefficients), Path((2, 2, 1, copies), coefficients)),
        dtype=dtype,
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("multiplicity", [1, 5, 32, 48, 96, 128])
@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("layout", ["mul_ir", "ir_mul"])
def test_every_element_arrives(layout, copies, multiplicity, dtype):
    described = problem(layout, multiplicity, dtype, copies)
    item = described.item_bytes
    blocks = {"x": [0, 2], "x1": [2], "y": [0, 1], "w": [0, copies]}
    stage = plan(described, multiplicity, blocks)
    for channel in range(0, multiplicity, LANES):
        shared = np.full(stage.size, 255, np.uint8)
        rows = {o: np.arange(described.row(o[0]).length, dtype=dtype) + 1000 * n for n, o in enumerate(blocks)}
        for copy in stage.copies:
            for lane in range(copy.lanes):
                if copy.masked and channel + lane >= multiplicity:
                    continue
                source = [s for s in copy.sources if s.first_lane <= lane][-1]
                offset = copy.start + source.offset + (lane - source.first_lane) * source.lane_step
                offset += channel * source.channel_step
                target = copy.target + lane * copy.size
                assert offset % copy.size == 0, "misaligned"
                assert target % copy.size == 0, "misaligned"
                piece = rows[copy.operand].view(np.uint8)[offset : offset + copy.size]
                assert len(piece) == copy.size, "outside the row"
                shared[target : target + copy.size] = piece
        for operand, numbers in blocks.items():
            for number in numbers:
                block = described.row(operand[0]).blocks[number]
                for i in range(block.dim):
                    place, step = stage.places[operand, number, i]
                    for lane in range(min(LANES, multiplicity - channel)):
                        found = shared[place + lane * step :][:item].view(dtype)[0]
                        index = block.offset + i * block.component_stride + (channel + lane) * block.channel_stride
                        assert found == rows[operand][index]


def test_aligned_rows_travel_sixteen_bytes_a_lane():
    described = convolution(
        x=channel_row([(64, 1), (64, 3)], "ir_mul"),
        y=copies_row([(1, 1), (1, 3)], "ir_mul"),
        w=weight_row([(64, 1)]),
        g=channel_row([(64, 1)], "ir_mul"),
        paths=(Path((0, 0, 0, 0), ((0, 0, 0, 1.0),)),),
    )
    stage = plan(described, 64, {"x": [0, 1], "y": [0, 1], "w": [0]})
    assert {copy.size for copy in stage.copies} == {16}
    assert len(stage.copies) == 3, "four rows of 32 channels fit one instruction"
