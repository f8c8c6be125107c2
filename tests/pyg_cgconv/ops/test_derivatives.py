"""Every order of derivative of the fused convolution against e3nn in float64."""

import pytest
import torch
from e3nn import o3
from hypothesis import given

from tests.problems import Case, cases, error, fill
from tests.random_examples import examples

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


def orders(convolution, inputs, cotangents):
    """Output, first derivatives, and the derivatives of their inner product with fixed random cotangents."""
    out = convolution(*inputs)
    first = torch.autograd.grad(out, inputs, cotangents[0], create_graph=True)
    inner = sum((g * c).sum() for g, c in zip(first, cotangents[1:], strict=True))
    second = torch.autograd.grad(inner, (*inputs, cotangents[0]), allow_unused=True)
    return [
        out,
        *first,
        *(torch.zeros_like(i) if g is None else g for g, i in zip(second, (*inputs, cotangents[0]), strict=True)),
    ]


def compare(case: Case, device, dtype, **options) -> None:
    layer = case.layer(backend=device.type, **options)
    exact = [t.to(dtype).double() for t in case.inputs()]
    generator = torch.Generator().manual_seed(1)
    shapes = [(case.targets, case.irreps_out.dim), *(t.shape for t in exact)]
    cotangents = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).double() for shape in shapes]

    def on(where, kind):
        return [t.detach().to(where, kind).requires_grad_() for t in exact], [
            t.to(where, kind).requires_grad_() for t in cotangents
        ]

    def fused(x, edge_attr, weight):
        return layer((x, None), case.edge_index.to(device), edge_attr, weight, size=case.size)

    results = orders(fused, *on(device, dtype))
    expected = orders(case.oracle, *on("cpu", torch.float64))
    names = ["out", "grad_x", "grad_y", "grad_w", "grad2_x", "grad2_y", "grad2_w", "grad2_out"]
    errors = {name: error(a, b) for name, a, b in zip(names, results, expected, strict=True)}
    assert max(errors.values()) < TOLERANCE[dtype], errors


@pytest.mark.parametrize("dtype", [torch.float64, pytest.param(torch.float32, marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("deterministic", [False, True])
@examples(8)
@given(case=cases())
def test_random_problems(device, dtype, deterministic, case):
    if device.type == "cpu" and deterministic:
        pytest.skip("the CPU kernels always are")
    compare(case, device, dtype, deterministic=deterministic)


@pytest.mark.slow
def test_high_degrees(device):
    instructions = [(0, 0, 0, "uvu", True), (1, 1, 1, "uvu", True), (0, 1, 2, "uvu", True)]
    irreps = (o3.Irreps("5x4e+3x6o"), o3.Irreps("4e+3o"), o3.Irreps("5x8e+3x3e+5x6o"))
    case = Case(*irreps, instructions, "mul_ir", False, *[None] * 4, targets=4)
    fill(case, sources=3, edges=9, seed=0)
    compare(case, device, torch.float64)
