"""A row of the table: one problem on one graph, compared with its reference in float64, then timed."""

from __future__ import annotations

import gc
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cuda_kernels.cache import installed_version

from ..nn import TensorProductConv
from ..tensor_product import shape, to_ir_mul, to_mul_ir
from . import graphs, problems, timing
from .kind import ORDERS, SITE, Contender, Form, Kind, default_dtype
from .peers import Make

STEP = "step"
CHECKED_NODES = 16
"""Nodes, or rows, whose results are compared."""

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
HOST_BOUND = 1_000
"""Edges, or rows, below which a GPU waits for the host, so that the host's time is measured too."""


@dataclass(frozen=True)
class Setting:
    """Where and how the rows of a table are measured; `bandwidth` in bytes and `arithmetic` in multiply-adds a
    millisecond, `seconds` for each time."""

    device: torch.device
    dtype: torch.dtype
    bandwidth: float
    arithmetic: float
    seconds: float
    steps: bool


def measure(make: Make, layout: str, problem: str, graph: str, setting: Setting) -> dict:
    """A row's figures, or as many as there are, and in "missing" why there are no more.

    - nodes, edges: the graph's. Rows without a graph are nodes.
    - numbers: of all inputs, and of the output.
    - floor_ms: for each order, milliseconds to move at copy bandwidth the numbers that must be moved.
    - arithmetic_ms: for each order, milliseconds of this project's multiply-adds at the rate of a matrix product.
    - how: which of its ways a peer goes, where it has several.
    - ms: milliseconds for each order, and for "step" if wanted; on a GPU those of kernels.
    - host_ms: the same with the host's work, for small graphs on a GPU.
    - memory_MB: peak beside inputs and outputs, for "forward" (and "step") on a GPU.
    - error: of the output, relative.
    """
    row: dict = {"ms": {}}
    try:
        kind = problems.kind_of(problem, graphs.build(graph).to(setting.device))
        row |= _size(kind, setting)
        _fill(row, make, layout, kind, setting)
    except torch.OutOfMemoryError:
        row["missing"] = "out of memory"
    except (ImportError, RuntimeError, AssertionError) as error:  # some peers assert what they cannot do
        row["missing"] = str(error).partition("\n")[0] or type(error).__name__
    gc.collect()
    if setting.device.type == "cuda":
        torch.cuda.empty_cache()
    return row


def _size(kind: Kind, setting: Setting) -> dict:
    """How large a problem is, and what it takes at least."""
    graph, (inputs, out) = kind.graph, kind.numbers()
    floors = floor(inputs, out, setting.dtype.itemsize, setting.bandwidth)
    return {
        "nodes": graph.nodes,
        "edges": 0 if graph.edge_index is None else graph.sites,
        "numbers": [inputs, out],
        "floor_ms": dict(zip(ORDERS, floors, strict=True)),
        "arithmetic_ms": {order: count / setting.arithmetic for order, count in kind.multiply_adds().items()},
    }


def _fill(row: dict, make: Make, layout: str, kind: Kind, setting: Setting) -> None:
    device, on_gpu = setting.device, setting.device.type == "cuda"
    with default_dtype(setting.dtype):  # e3nn and cuequivariance make coefficients of this dtype
        contender = make(kind, Form(layout, setting.dtype, device))
    if contender.how:
        row["how"] = contender.how
    given = random_inputs(kind, setting)
    expected = reference(kind, given)
    inputs = arranged(contender, kind, given)
    del given  # weights may be most of the memory, and those that are arranged a copy
    row["error"] = check(contender, kind, inputs, expected)
    if on_gpu:
        row["memory_MB"] = {}
    if on_gpu and kind.graph.sites < HOST_BOUND:
        row["host_ms"] = {}
    for name, call in calls(contender.run, inputs, setting.steps and kind.has_forces):
        row["ms"][name] = timing.milliseconds(call, device, setting.seconds)
        if "memory_MB" in row and name in ("forward", STEP):
            row["memory_MB"][name] = timing.working_memory(call)
        if "host_ms" in row:
            row["host_ms"][name] = timing.host_milliseconds(call, device, setting.seconds)


def random_inputs(kind: Kind, setting: Setting) -> list[Tensor]:
    """Inputs in mul_ir and e3nn's order of weights."""
    generator = torch.Generator(setting.device).manual_seed(0)
    options: dict[str, Any] = dict(device=setting.device, dtype=setting.dtype, generator=generator)
    return [torch.randn(operand.shape(kind.graph), **options) for operand in kind.inputs]


def reference(kind: Kind, inputs: list[Tensor]) -> Tensor:
    """The output of the first nodes, by the kind's reference in float64, in mul_ir."""
    graph, kept = kind.graph.of_first(CHECKED_NODES)
    form = Form("mul_ir", torch.float64, torch.device("cpu"))
    small = [t[kept] if operand.of == SITE else t for operand, t in zip(kind.inputs, inputs, strict=True)]
    run = kind.on(graph.to(form.device)).reference(form).run
    return run(*(t.to(form.device, form.dtype) for t in small))[:CHECKED_NODES]


def arranged(contender: Contender, kind: Kind, inputs: list[Tensor]) -> list[Tensor]:
    """The inputs as a contender takes them."""
    if contender.layout == "ir_mul":
        inputs = [to_ir_mul(t, shape(operand.irreps)) for operand, t in zip(kind.inputs, inputs, strict=True)]
    return [t.detach().contiguous().requires_grad_() for t in contender.arrange(*inputs)]


def host_cost(device: torch.device, seconds: float) -> dict[str, float]:
    """Microseconds of the host's work for a call with the 316 edges of a molecule: of a layer with one channel, whose
    kernels take next to nothing. The output alone; with its gradients; with the gradients of those, too."""
    layer = TensorProductConv("1x0e", "0e", "1x0e")
    graph = graphs.build("molecule").to(device)
    rows = graph.nodes, graph.sites, graph.sites
    inputs = [torch.randn(number, 1, device=device, requires_grad=True) for number in rows]
    cotangent = torch.randn(graph.nodes, 1, device=device, requires_grad=True)

    def run() -> Tensor:
        return layer(inputs[0], graph.edge_index, *inputs[1:])

    def with_gradients(create_graph: bool = False) -> tuple[Tensor, ...]:
        return torch.autograd.grad(run(), inputs, cotangent, create_graph=create_graph)

    def with_second_gradients() -> tuple[Tensor, ...]:
        first = with_gradients(create_graph=True)
        return torch.autograd.grad(first, [*inputs, cotangent], first)

    calls: tuple[Callable[[], object], ...] = run, with_gradients, with_second_gradients
    milliseconds = [timing.host_milliseconds(call, device, seconds) for call in calls]
    return {order: 1e3 * time for order, time in zip(ORDERS, milliseconds, strict=True)}


def machine(device: torch.device) -> dict:
    """The device, and the versions of what is compared."""
    packages = ("torch", "numba", "numba-cuda", "e3nn", "torch_scatter", "cuequivariance-torch", "openequivariance")
    models = ("mace-torch", "nequip", "sevenn")
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{platform.machine()}, {torch.get_num_threads()} threads"
    )
    return {"device": name, "versions": {package: installed_version(package) for package in (*packages, *models)}}


def limit(row: dict, order: str) -> float:
    """Milliseconds that neither memory nor arithmetic can do without; rows of older files know of memory alone."""
    return max(row["floor_ms"][order], row.get("arithmetic_ms", {}).get(order, 0.0))


def floor(inputs: int, out: int, item: int, bandwidth: float) -> tuple[float, float, float]:
    """Milliseconds for the numbers that must move: forward, backward, double backward."""
    first, second, third = (n * item / bandwidth for n in (inputs + out, 2 * inputs + out, 3 * inputs + 2 * out))
    return first, second, third


def calls(run: Callable, inputs: list[Tensor], steps: bool) -> Iterator[tuple[str, Callable]]:
    """What is timed, by name; each is made when the one before it is done with."""
    yield from _orders(run, inputs)
    if steps:
        yield STEP, lambda: step(run, *inputs)


def _orders(run: Callable, inputs: list[Tensor]) -> Iterator[tuple[str, Callable]]:
    """The output, its gradients, and the gradients of those."""
    yield "forward", lambda: run(*inputs)
    out = run(*inputs)
    cotangent = torch.randn_like(out).requires_grad_()
    yield "backward", lambda: torch.autograd.grad(out, inputs, cotangent, retain_graph=True)
    first = torch.autograd.grad(out, inputs, cotangent, create_graph=True)
    tangents, every = [torch.randn_like(t) for t in first], [*inputs, cotangent]
    yield "double_backward", lambda: torch.autograd.grad(first, every, tangents, retain_graph=True)


def step(run: Callable, x: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    """A training step on energies and forces, as far as it goes through the convolution: gradients with respect to w
    and x of a loss on the energy and on its gradient with respect to y, through which the forces pass."""
    energy = run(x, y, w).square().sum()
    (forces,) = torch.autograd.grad(energy, y, create_graph=True)
    return torch.autograd.grad(energy + forces.square().sum(), (w, x))


def check(contender: Contender, kind: Kind, inputs: list[Tensor], expected: Tensor) -> float:
    """The relative error of the first nodes' output.

    Raises:
        RuntimeError: it is too large to time what was computed.
    """
    with torch.no_grad():
        result = contender.run(*inputs)[:CHECKED_NODES].double().cpu()
    if contender.layout == "ir_mul":
        result = to_mul_ir(result, shape(kind.output.irreps))
    error = ((result - expected).norm() / expected.norm()).item()
    if not error < TOLERANCE[inputs[0].dtype]:
        raise RuntimeError(f"the output differs from the reference by {error:.1e}; it was not timed")
    return error
