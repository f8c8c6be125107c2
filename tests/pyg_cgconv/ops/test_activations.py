"""Kernels of gates, interpreted thread by thread and on a GPU, against PyTorch's own functions."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional

from cuda_kernels.cuda import gate as kernels
from cuda_kernels.cuda.binary import GATE_THREADS
from cuda_kernels.gate import Order, table
from pyg_cgconv.cuda_graphs import capturing, rehearsing
from pyg_cgconv.nn import Gate
from pyg_cgconv.ops import Gates, _activations, gated, silu
from pyg_cgconv.ops._activations import SILU, SiLU

IRREPS = ["3x0e", "2x0e+3x0o+2x1o+1x2e", "4x1o+2x1e", "2x0o+1x3o+5x0e"]
TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-6}


def interpreted(order: Order, gates: Gates, inputs: list, lengths: list) -> list:
    """What the threads of a launch do, one after the other, and some beyond the last."""
    rows = [each.detach().contiguous().numpy().reshape(-1) for each in inputs]
    count, units = len(inputs[0]) * len(gates.units), len(gates.units)
    outputs = [np.full(len(inputs[0]) * length, np.nan, rows[0].dtype) for length in lengths]
    kernel = kernels.kernel_of(order, str(rows[0].dtype), gates.gains)
    sizes = [np.uint32(n) for n in (count, units, gates.length_in, gates.length_out)]
    threads = SimpleNamespace(blockDim=SimpleNamespace(x=4))
    with pytest.MonkeyPatch.context() as patch, np.errstate(over="ignore"):
        patch.setattr(kernels, "cuda", threads)
        patch.setattr(kernels, "math", np)  # exp has infinities, as on a GPU
        for thread in range(count + 3):
            threads.blockIdx, threads.threadIdx = SimpleNamespace(x=thread // 4), SimpleNamespace(x=thread % 4)
            kernel(*rows, *outputs, table(gates.units).astype(np.uint32).reshape(-1), *sizes)
    return [torch.from_numpy(each).view(-1, length) for each, length in zip(outputs, lengths, strict=True)]


@pytest.fixture
def on_a_cpu(monkeypatch):
    """Kernels are interpreted."""
    monkeypatch.setattr(_activations, "launched", interpreted)
    monkeypatch.setattr(_activations, "_have_kernels", lambda x, threads: True)
    monkeypatch.setattr("pyg_cgconv.nn._gate.is_for_graph", lambda x: True)


def random(*shape, dtype=torch.float64, device="cpu"):
    generator = torch.Generator().manual_seed(sum(shape))
    return (3 * torch.randn(*shape, dtype=dtype, generator=generator)).to(device).requires_grad_()


def derivatives(function, x, count: int) -> list:
    """The result, and the first derivatives of sums of it and of them with factors that differ."""
    found = [function(x)]
    for order in range(count):
        factors = torch.linspace(-1, 2, found[-1].numel(), dtype=x.dtype, device=x.device).view(found[-1].shape)
        found.append(torch.autograd.grad((found[-1] * factors).sum(), x, create_graph=order < count - 1)[0])
    return found


def compare(gate: Gate, plain: Gate, x, count: int) -> None:
    tolerance = TOLERANCES[x.dtype]
    for found, expected in zip(derivatives(gate, x, count), derivatives(plain, x, count), strict=True):
        torch.testing.assert_close(found, expected, rtol=10 * tolerance, atol=tolerance * expected.abs().max().item())


@pytest.mark.parametrize("layout", ["ir_mul", "mul_ir"])
@pytest.mark.parametrize("irreps", IRREPS)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("count", [2, 3])  # the last derivative has kernels, or their derivative is asked for
def test_gates_and_their_derivatives(on_a_cpu, irreps, layout, dtype, count):
    gate, plain = Gate(irreps, layout=layout), Gate(irreps, layout=layout, fused=False)
    compare(gate, plain, random(3, gate.irreps_in.dim, dtype=dtype), count)


def test_by_finite_differences(on_a_cpu):
    gate = Gate("2x0e+1x0o+2x1o")
    assert gradcheck(gate, random(2, gate.irreps_in.dim))
    assert gradgradcheck(gate, random(2, gate.irreps_in.dim))
    assert gradcheck(SiLU.apply, random(5))
    assert gradgradcheck(SiLU.apply, random(5))


@pytest.mark.parametrize(("apply", "plain"), [(silu, functional.silu), (gate := Gate("2x0e+1x0o+2x1o"), gate._plain)])
def test_gradients_that_are_made_of_the_input_themselves(on_a_cpu, apply, plain):
    x = random(3, 11)
    results = [], []
    for function, found in zip((apply, plain), results, strict=True):
        found.append(function(x).pow(3).sum())
        for order in range(3):
            found.append(torch.autograd.grad(found[-1].square().sum(), x, create_graph=order < 2)[0])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def test_silu_far_from_zero(on_a_cpu):
    x = torch.tensor([-1e4, -800.0, -90.0, -1e-30, 0.0, 30.0, 800.0, 1e4], dtype=torch.float64).requires_grad_()
    for found, expected in zip(derivatives(silu, x, 2), derivatives(torch.nn.functional.silu, x, 2), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    (found,) = interpreted(Order.FORWARD, SILU, [x.detach()[:, None]], [1])
    torch.testing.assert_close(found[:, 0], torch.nn.functional.silu(x.detach()))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", Order)
def test_compiled_without_spills(order, dtype):
    for capability in ((8, 0), (9, 0)):
        binary = kernels.compile_gate(order, dtype, SILU.gains, capability)
        assert binary.stack_bytes == 0
        assert binary.registers * GATE_THREADS * 4 <= 65536  # four blocks of a multiprocessor


@pytest.mark.cuda
@pytest.mark.parametrize("irreps", IRREPS)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_in_a_cuda_graph(irreps, dtype):
    gate, plain = Gate(irreps, layout="ir_mul"), Gate(irreps, layout="ir_mul", fused=False)
    x, stream = random(700, gate.irreps_in.dim, dtype=dtype, device="cuda").detach(), torch.cuda.Stream()

    def run():
        leaf = x.detach().requires_grad_()
        return derivatives(lambda x: gate(x) * silu(x).sum(1, keepdim=True), leaf, 2)

    with rehearsing(stream):
        first = run()
    with capturing(stream) as graph:
        found = run()
    graph.replay()
    leaf = x.double().requires_grad_()
    expected = derivatives(lambda x: plain(x) * torch.nn.functional.silu(x).sum(1, keepdim=True), leaf, 2)
    for values in (first, found):
        for one, other in zip(values, expected, strict=True):
            assert (one.double() - other).abs().max() <= 5 * TOLERANCES[dtype] * other.abs().max()


@pytest.mark.parametrize("missing", ["cuda.bindings", "numba_cuda"])
def test_without_the_compiler_they_are_pytorchs(monkeypatch, missing):
    compile_here = _activations._compile_here.__wrapped__
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    installed = {"cuda.bindings", "numba", "numba_cuda"}
    monkeypatch.setattr(_activations, "find_spec", lambda name: name in installed or None)
    assert compile_here(0)
    installed.remove(missing)
    assert not compile_here(0)


def test_elsewhere_they_are_pytorchs():
    x = random(4)
    assert type(silu(x).grad_fn).__name__ == "SiluBackward0"
    gate = Gate("2x0e+1x1o")
    assert torch.equal(gate(random(3, gate.irreps_in.dim)), gate._plain(random(3, gate.irreps_in.dim)))
    assert torch.equal(gated(SILU, x[:, None])[:, 0], silu(x))
