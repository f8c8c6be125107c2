"""The CPU kernels' machine code, and what it does to rows."""

import platform
import re
from functools import cache

import numpy as np
import pytest

from cuda_kernels.cpu.edge import vector_bytes
from cuda_kernels.cpu.kernel import compile_kernel
from cuda_kernels.cpu.launch import Transposition
from cuda_kernels.passes import Pass
from cuda_kernels.problem import Index, Path, channel_row, copies_row, weight_row
from tests.problems import BACKWARD, FORWARD, convolution, named

ARITHMETIC = re.compile(r"\tv(?:fn?m(?:add|sub)\d+|mul|add|sub)(ps|ss)\s.*%([xyz])mm")


reads_assembly = pytest.mark.skipif(
    platform.machine() != "x86_64" or vector_bytes() < 32, reason="reads the assembly of x86-64 with AVX"
)


@pytest.fixture(scope="module")
def assembly(tmp_path_factory):
    """assembly(contraction, by): what the compiler makes of a pass; kernels from a cache do not have it."""

    @cache
    def assembly(contraction, by) -> str:
        kernel = compile_kernel(named("mace-medium", layout="ir_mul").problem, [Pass(by, contraction)])
        return "".join(kernel.inspect_asm().values())

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYG_CGCONV_CACHE", str(tmp_path_factory.mktemp("kernels")))
        yield assembly


@pytest.mark.slow
@reads_assembly
@pytest.mark.parametrize(
    ("contraction", "by"), [(FORWARD, Index.TARGET), (BACKWARD, Index.SOURCE)], ids=["forward", "backward"]
)
def test_channels_fill_vector_registers(contraction, by, assembly):
    found = ARITHMETIC.findall(assembly(contraction, by))
    widest = {64: "z", 32: "y"}[vector_bytes()]
    wide = sum(kind == "ps" and register == widest for kind, register in found)
    products = sum(len(path.coefficients) for path in named("mace-medium").problem.paths)
    assert wide > products, "the arithmetic of all paths is there"
    # What is the same for all channels is computed once an edge, number by number.
    assert sum(kind == "ss" for kind, _ in found) < 3 * products


@pytest.mark.slow
@reads_assembly
def test_weights_are_fetched_ahead_and_their_gradients_go_past_the_caches(assembly):
    paths = len(named("mace-medium").problem.paths)
    forward, backward = assembly(FORWARD, Index.TARGET), assembly(BACKWARD, Index.SOURCE)
    assert forward.count("\tprefetch") == backward.count("\tprefetch") == paths
    assert forward.count("\tvmovntps") == 0
    assert backward.count("\tvmovntps") == paths


def of_features(shapes, dtype: str = "float32", terms: int = 1):
    """A problem whose x has rows of these (multiplicity, dim), in mul_ir."""
    multiplicity = shapes[0][0]
    return convolution(
        x=channel_row(shapes, "mul_ir"),
        y=copies_row([(1, 1)], "mul_ir"),
        w=weight_row([(multiplicity, 1)]),
        g=channel_row([(multiplicity, 3)], "mul_ir"),
        paths=(Path((0, 0, 0, 0), tuple((n, 0, n, 1.0) for n in range(terms))),),
        dtype=dtype,
    )


def component_major(rows: np.ndarray, problem) -> np.ndarray:
    result = np.full_like(rows, -1)
    Transposition(problem, "x")(rows.ctypes.data, result.ctypes.data, len(rows), 2)
    return result


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("multiplicity", [1, 5, 8, 33, 64])
def test_rows_become_component_major(multiplicity, dtype):
    shapes = [(multiplicity, 3), (7, 1), (multiplicity, 7), (2 * multiplicity, 2)]
    problem = of_features(shapes, dtype)
    rows = np.arange(4 * problem.row("x").length, dtype=dtype).reshape(4, -1)
    result = component_major(rows, problem)
    start = 0
    for channels, dim in shapes:
        block = rows[:, start : start + channels * dim].reshape(4, channels, dim)
        found = result[:, start : start + channels * dim].reshape(4, dim, channels)
        np.testing.assert_array_equal(found, block.transpose(0, 2, 1))
        start += channels * dim


def test_problems_with_rows_in_common_share_their_transposition(monkeypatch, tmp_path):
    monkeypatch.setenv("PYG_CGCONV_CACHE", str(tmp_path))
    rows = np.arange(57, dtype="float32").reshape(1, -1)
    for terms in (1, 2):
        component_major(rows, of_features([(19, 3)], terms=terms))
    assert len(list(tmp_path.iterdir())) == 1
