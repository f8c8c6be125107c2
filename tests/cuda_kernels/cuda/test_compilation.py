"""CUDA kernels are compiled for real, GPU or not, and the assembler's report is read."""

from types import SimpleNamespace

import pytest
from e3nn import o3

pytest.importorskip("numba_cuda", reason="the CUDA kernels' compiler is not installed")

from cuda_kernels.contraction import backward, double_backward, forward
from cuda_kernels.cuda import kernel, powers
from cuda_kernels.cuda.compile import machine_code
from cuda_kernels.cuda.kernel import compile_pass, segment_assembly
from cuda_kernels.cuda.launch import compiled_pass
from cuda_kernels.cuda.schedule import segments
from cuda_kernels.passes import Pass, single_pass
from cuda_kernels.problem import Index
from pyg_cgconv import TensorProductConv
from pyg_cgconv.benchmark.problems import PROBLEMS
from pyg_cgconv.nn import NodeProducts, SymmetricContraction
from pyg_cgconv.tensor_product import describe, problem_of
from tests.problems import BACKWARD, DOUBLE_BACKWARD, FORWARD, named
from tests.random_examples import only_long

HOPPER = (9, 0)
thorough = pytest.mark.thorough

every_order = pytest.mark.parametrize(
    "contraction", [FORWARD, BACKWARD, DOUBLE_BACKWARD], ids=["forward", "backward", "double_backward"]
)


# Kernels that take less than a second or two to compile, and those that take more than five.
SMALL = ("mace-medium", "nequip-aspirin", "nequip-water")
LARGE = ("nequip-benzene", "sevennet-l3i5")


def each(names) -> list:
    marks = {name: only_long() if name in LARGE else [] if name in SMALL else [thorough] for name in names}
    return [pytest.param(name, marks=marks[name]) for name in names]


@pytest.mark.slow
@every_order
@pytest.mark.parametrize("name", each(PROBLEMS))
def test_named_problems_do_not_spill(name, contraction):
    binaries = compile_pass(named(name, layout="ir_mul").problem, Pass(Index.TARGET, contraction), HOPPER)
    assert [b.stack_bytes for b in binaries] == [0] * len(binaries)
    assert all(0 < b.registers <= 255 for b in binaries)
    assert all(b.shared_bytes <= 227 * 1024 for b in binaries)


HIGH_DEGREE = ("128x6e", "1x3e", "128x6e")


def many_paths(slots: int) -> tuple[str, str, str]:
    return "+".join(["32x0e+32x1o"] * slots), "0e+1o", "0e+1o+1e+2e"


@pytest.mark.slow
@every_order
@pytest.mark.parametrize(
    ("irreps", "paths"),
    [
        pytest.param(HIGH_DEGREE, 1, id="l = 6"),
        pytest.param(many_paths(10), 60, id="60 paths", marks=thorough),
        pytest.param(many_paths(34), 204, id="204 paths", marks=only_long()),
    ],
)
def test_high_degrees_and_many_paths_do_not_spill(irreps, paths, contraction):
    problem = TensorProductConv(*irreps, layout="ir_mul").problem
    assert len(problem.paths) == paths
    assert all(binary.stack_bytes == 0 for binary in compile_pass(problem, Pass(Index.TARGET, contraction), HOPPER))


@thorough
def test_double_precision_is_cut_until_nothing_spills():
    binaries = compile_pass(named("mace-large").problem.with_dtype("float64"), Pass(Index.TARGET, FORWARD), HOPPER)
    assert [b.stack_bytes for b in binaries] == [0] * len(binaries)


@pytest.mark.slow
def test_rows_are_staged_asynchronously_and_the_forward_has_no_atomics():
    (segment,) = segments(named("mace-medium", layout="ir_mul").problem, Pass(Index.TARGET, FORWARD), HOPPER)
    text = segment_assembly(segment)
    assert text.count("cp.async.cg.shared.global") >= 4
    assert "red.global.add" not in text
    assert "atom." not in text
    assert ".local" not in text


def test_the_backward_adds_to_sources_in_the_cache():
    (segment,) = segments(named("mace-medium", layout="ir_mul").problem, Pass(Index.TARGET, BACKWARD), HOPPER)
    text = segment_assembly(segment)
    assert "red.global.add.f32" in text
    assert "atom." not in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("channels", "compute_capability"),
    [(128, HOPPER), pytest.param(128, (8, 6), marks=thorough), pytest.param(5, HOPPER, marks=thorough)],
)
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=thorough)])
def test_products_of_features_fit_and_have_no_atomics(channels, compute_capability, dtype, monkeypatch):
    texts = []
    monkeypatch.setattr(kernel, "segment_assembly", lambda s: texts.append(segment_assembly(s)) or texts[-1])
    irreps = "+".join(f"{channels}x{ir}" for ir in ("0e", "1o", "2e", "3o"))
    problem = problem_of(NodeProducts(irreps, channels, irreps)._description, dtype)
    for contraction in (forward(problem), backward(problem)):
        (walk,) = single_pass(problem, contraction)
        binaries = compile_pass(problem, walk, compute_capability)
        assert len(binaries) <= 11
        assert [b.stack_bytes for b in binaries] == [0] * len(binaries)
        assert all(b.shared_bytes <= (227 if compute_capability == HOPPER else 99) * 1024 for b in binaries)
    assert texts
    assert not any("red.global.add" in text for text in texts)


def test_polynomials_and_maps_of_each_edge_do_not_spill():
    """The smallest of each; the PTX machine runs others."""
    polynomial = problem_of(SymmetricContraction("2x0e+2x1o", "2x0e", 2, 3)._description, "float32")
    maps = problem_of(describe.maps([(4, 1, 4, 0)], o3.Irreps("4x0e"), "mul_ir", True), "float32")
    for problem in (polynomial, maps):
        (walk,) = single_pass(problem, forward(problem))
        (binary,) = compiled_pass(problem, walk, HOPPER)
        assert binary.stack_bytes == 0
        assert 0 < binary.registers <= 255


@pytest.mark.parametrize(("capability", "kilobytes"), [((8, 0), 163), ((8, 6), 99), ((8, 9), 99), ((9, 0), 227)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_blocks_of_polynomials_have_the_memory_that_they_ask_for(dtype, capability, kilobytes, monkeypatch):
    """CUDA's table of compute capabilities. Elements of MACE's largest polynomials, and all of their derivatives."""
    irreps = "32x0e+32x1o+32x2e+32x3o", "32x0e+32x1o"
    problem = problem_of(SymmetricContraction(*irreps, 3, 2)._description, dtype)
    asked = []

    def compiled(parts, _):
        asked.append(parts.shared_bytes)
        return SimpleNamespace(stack_bytes=0)

    monkeypatch.setattr(powers, "_compiled", compiled)
    for contraction in (forward(problem), backward(problem), double_backward(problem)):
        for walk in single_pass(problem, contraction):
            powers.compile_pass(problem, walk, capability)
    assert len(asked) == 5
    assert 0 < max(asked) <= kilobytes * 1024


def test_a_gpu_that_there_is_not_is_named():
    with pytest.raises(ValueError, match="compute_capability: the CUDA linker that is installed knows no sm_999"):
        machine_code(".version 8.0\n.target sm_80\n.address_size 64\n", (99, 9))
