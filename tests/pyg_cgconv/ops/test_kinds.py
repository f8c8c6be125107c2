"""Contractions of other kinds than today's layers have: each is a description, and the kernels are those that exist.

What is expected is the form itself, as an einsum over the coefficients, differentiated by torch.
"""

import pytest
import torch
from torch import Tensor

from cuda_kernels.contraction import Contraction, backward, double_backward, forward
from cuda_kernels.problem import (
    ABSENT,
    Channels,
    Index,
    Operand,
    Path,
    Problem,
    base,
    channel_row,
    copies_row,
    weight_row,
)
from pyg_cgconv.ops import Edges, _run
from pyg_cgconv.ops._edges import Graph
from pyg_cgconv.ops._memory import POOL
from tests.problems import error

DIMS = (1, 3)
COUPLINGS = [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, 1)]  # blocks of left, right, out
ROWS = {Index.TARGET: 4, Index.SOURCE: 5, Index.EDGE: 9}


def features(name: str, index: Index, channels: int, layout: str) -> Operand:
    return Operand(name, channel_row([(channels, dim) for dim in DIMS], layout), index)


def kinds(channels: int, layout: str) -> dict[str, tuple[tuple[Operand, ...], tuple[str, ...]]]:
    """Operands and form of each kind."""
    g, x = (features(n, i, channels, layout) for n, i in (("g", Index.TARGET), ("x", Index.SOURCE)))
    y = Operand("y", copies_row([(1, dim) for dim in DIMS], layout), Index.EDGE, Channels.NONE)
    weights = weight_row([(channels, 1)] * len(COUPLINGS))
    w, shared = Operand("w", weights, Index.EDGE), Operand("w", weights, Index.ONE)
    rows = {name: features(name, Index.EDGE, channels, layout) for name in "gxy"}
    return {
        "no graph": ((rows["g"], rows["x"], y, w), ("g", "x", "y", "w")),
        "no graph, shared weights": ((rows["g"], rows["x"], y, shared), ("g", "x", "y", "w")),
        "no graph, both with channels": ((rows["g"], rows["x"], rows["y"]), ("g", "x", "y", ABSENT)),
        "channels on the edge": ((g, x, rows["y"]), ("g", "x", "y", ABSENT)),
        "weights and channels on the edge": (
            (g, x, rows["y"], w),
            ("g", "x", "y", "w"),
        ),
        "weights of another name, which one path lacks": (
            (g, x, y, Operand("radial", weights, Index.EDGE)),
            ("g", "x", "y", "radial"),
        ),
        "square of the source": ((g, x), ("g", "x", "x", ABSENT)),
    }


def problem_of(kind: str, channels: int, layout: str) -> Problem:
    operands, form = kinds(channels, layout)[kind]
    generator = torch.Generator().manual_seed(0)
    paths = []
    for n, (left, right, out) in enumerate(COUPLINGS):
        c = torch.randn(DIMS[left], DIMS[right], DIMS[out], generator=generator, dtype=torch.float64)
        coefficients = tuple((i, j, k, c[i, j, k].item()) for i, j, k in (c.abs() > 0.5).nonzero().tolist())
        lacks = form[3] == ABSENT or (form[3] == "radial" and n == 1)
        paths.append(Path((out, left, right, None if lacks else n), coefficients))
    return Problem(operands, form, tuple(paths), "float64")


def block(problem: Problem, name: str, rows: Tensor, number: int) -> Tensor:
    """(sites, channels or 1, dim) of a row's block."""
    b = problem.row(name).blocks[number]
    channel, component = torch.arange(b.multiplicity)[:, None], torch.arange(b.dim)
    return rows[:, b.offset + channel * b.channel_stride + component * b.component_stride]


def form(problem: Problem, values: dict[str, Tensor], term: tuple[str, ...], ends: dict[Index, Tensor]) -> Tensor:
    """M of the term's operands."""

    def rows(name: str) -> Tensor:
        return values[name][ends[problem.operand(name).index]]

    total = torch.zeros((), dtype=torch.float64)
    for path in problem.paths:
        out, left, right, weight = path.blocks
        if weight is None:  # the weights are one, their cotangents zero
            w = torch.full((1, 1, 1), float(term[3] in (ABSENT, base(term[3]))), dtype=torch.float64)
        else:
            w = block(problem, term[3], rows(term[3]), weight)
        g, x, y = (block(problem, n, rows(n), b) for n, b in zip(term, (out, left, right), strict=False))
        for i, j, k, c in path.coefficients:
            total = total + c * (g[..., k] * x[..., i] * y[..., j] * w[..., 0]).sum()
    return total


def check(kind: str, channels: int, layout: str) -> None:
    problem, generator = problem_of(kind, channels, layout), torch.Generator().manual_seed(1)
    source, target = (torch.randint(ROWS[i], (9,), generator=generator) for i in (Index.SOURCE, Index.TARGET))
    site = torch.arange(9)
    ends = {Index.SOURCE: source, Index.TARGET: target, Index.EDGE: site, Index.ONE: torch.zeros_like(site)}
    graph = None
    if problem.has_graph:
        edges = Edges((source, target), ROWS[Index.SOURCE], ROWS[Index.TARGET])
        graph = Graph(edges.by_target, edges.by_source, edges.sources)
    for order in (forward, backward, double_backward):
        contraction: Contraction = order(problem)
        names = dict.fromkeys(n for term in contraction.terms for n in term if n != ABSENT)
        values = {}
        for name in names:
            operand = problem.operand(name)
            count = ROWS.get(operand.index, 1)
            values[name] = torch.randn(count, operand.row.length, generator=generator, dtype=torch.float64)
        inputs = [values[n][0] if problem.operand(n).index is Index.ONE else values[n] for n in contraction.inputs]
        found = _run.run(problem, contraction, inputs, graph, False)
        leaves = [values[name].requires_grad_() for name in contraction.outputs]
        total = sum(form(problem, values, term, ends) for term in contraction.terms)
        for name, result, expected in zip(contraction.outputs, found, torch.autograd.grad(total, leaves), strict=True):
            assert error(result, expected.reshape(result.shape)) < 1e-13, (contraction.spec, name)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", kinds(2, "mul_ir"))
def test_on_a_cpu(kind, monkeypatch):
    monkeypatch.setattr(POOL, "empty", lambda shape, dtype: torch.full(shape, torch.nan, dtype=dtype))
    check(kind, channels=5, layout="mul_ir")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("kind", "channels", "layout", "options"),
    [
        ("no graph", 32, "ir_mul", {"registers": 90}),  # in several segments
        ("no graph, shared weights", 5, "mul_ir", {"walks": 2}),  # several sites a walk
        ("no graph, both with channels", 5, "mul_ir", {"walks": 4}),
        ("weights and channels on the edge", 32, "ir_mul", {"registers": 90}),
        ("channels on the edge", 5, "mul_ir", {}),
        ("weights of another name, which one path lacks", 5, "mul_ir", {}),
        ("square of the source", 5, "mul_ir", {}),
    ],
)
def test_on_a_gpus_emulator(kind, channels, layout, options):
    pytest.importorskip("numba_cuda", reason="the CUDA kernels' compiler is not installed")
    from tests.emulated import emulated_gpu

    with emulated_gpu(**options):
        check(kind, channels, layout)
