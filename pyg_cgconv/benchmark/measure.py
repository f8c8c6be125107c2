"""A row of the table: one convolution on one graph, compared with e3nn in float64, then timed."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cuda_kernels.contraction import backward, double_backward, forward
from cuda_kernels.operations import multiply_adds

from ..nn import TensorProductConv
from ..tensor_product import shape, to_ir_mul, to_mul_ir
from . import graphs, peers, timing

ORDERS = {"forward": forward, "backward": backward, "double_backward": double_backward}
STEP = "step"
CHECKED_NODES = 16
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
HOST_BOUND = 1_000
"""Edges below which a GPU waits for the host, so that the host's time is measured too."""


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


def measure(make: Callable, layout: str, problem: str, graph: str, setting: Setting) -> dict:
    """A row's figures, or as many as there are, and in "missing" why there are no more.

    - nodes, edges: the graph's.
    - floor_ms: for each order, milliseconds to move at copy bandwidth the numbers that must be moved.
    - arithmetic_ms: for each order, milliseconds of this project's multiply-adds at the rate of a matrix product.
    - ms: milliseconds for each order, and for "step" if wanted; on a GPU those of kernels.
    - host_ms: the same with the host's work, for small graphs on a GPU.
    - memory_MB: peak beside inputs and outputs, for "forward" (and "step") on a GPU.
    - error: of the output, relative.
    """
    row: dict = {"ms": {}}
    try:
        _fill(row, make, layout, problem, graph, setting)
    except torch.OutOfMemoryError:
        row["missing"] = "out of memory"
    except (ImportError, RuntimeError) as error:
        row["missing"] = str(error).partition("\n")[0]
    gc.collect()
    if setting.device.type == "cuda":
        torch.cuda.empty_cache()
    return row


def _fill(row: dict, make: Callable, layout: str, problem: str, graph: str, setting: Setting) -> None:
    device, on_gpu = setting.device, setting.device.type == "cuda"
    nodes, edge_index = graphs.build(graph)
    edge_index, edges = edge_index.to(device), edge_index.shape[1]
    reference = peers.reference(problem)
    shapes = ((nodes, reference.irreps_in.dim), (edges, reference.irreps_edge.dim), (edges, reference.weight_numel))
    x, y, w = (rows * dim for rows, dim in shapes)
    floors = floor(x, y, w, nodes * reference.irreps_out.dim, setting.dtype.itemsize, setting.bandwidth)
    row |= {"nodes": nodes, "edges": edges, "floor_ms": dict(zip(ORDERS, floors, strict=True))}
    known = peers.problem_of(problem)
    each_edge = {order: multiply_adds(known, contraction(known)) for order, contraction in ORDERS.items()}
    row["arithmetic_ms"] = {order: edges * count / setting.arithmetic for order, count in each_edge.items()}

    peer = make(problem, layout, edge_index, setting.dtype)
    generator = torch.Generator(device).manual_seed(0)
    options: dict[str, Any] = dict(device=device, dtype=setting.dtype, generator=generator, requires_grad=True)
    inputs = [torch.randn(s, **options) for s in shapes]
    row["error"] = check(peer, problem, edge_index, inputs)
    if on_gpu:
        row["memory_MB"] = {}
    if on_gpu and edges < HOST_BOUND:
        row["host_ms"] = {}
    for name, call in calls(peer.run, inputs, setting.steps):
        row["ms"][name] = timing.milliseconds(call, device, setting.seconds)
        if "memory_MB" in row and name in ("forward", STEP):
            row["memory_MB"][name] = timing.working_memory(call)
        if "host_ms" in row:
            row["host_ms"][name] = timing.host_milliseconds(call, device, setting.seconds)


def host_cost(device: torch.device, seconds: float) -> dict[str, float]:
    """Microseconds of the host's work for a call with the 316 edges of a molecule: of a layer with one channel, whose
    kernels take next to nothing. The output alone; with its gradients; with the gradients of those, too."""
    layer = TensorProductConv("1x0e", "0e", "1x0e")
    nodes, edge_index = graphs.build("molecule")
    edge_index, edges = edge_index.to(device), edge_index.shape[1]
    inputs = [torch.randn(rows, 1, device=device, requires_grad=True) for rows in (nodes, edges, edges)]
    cotangent = torch.randn(nodes, 1, device=device, requires_grad=True)

    def run() -> Tensor:
        return layer(inputs[0], edge_index, *inputs[1:])

    def with_gradients(create_graph: bool = False) -> tuple[Tensor, ...]:
        return torch.autograd.grad(run(), inputs, cotangent, create_graph=create_graph)

    def with_second_gradients() -> tuple[Tensor, ...]:
        first = with_gradients(create_graph=True)
        return torch.autograd.grad(first, [*inputs, cotangent], first)

    calls: tuple[Callable[[], object], ...] = run, with_gradients, with_second_gradients
    milliseconds = [timing.host_milliseconds(call, device, seconds) for call in calls]
    return {order: 1e3 * time for order, time in zip(ORDERS, milliseconds, strict=True)}


def limit(row: dict, order: str) -> float:
    """Milliseconds that neither memory nor arithmetic can do without; rows of older files know of memory alone."""
    return max(row["floor_ms"][order], row.get("arithmetic_ms", {}).get(order, 0.0))


def floor(x: int, y: int, w: int, out: int, item: int, bandwidth: float) -> tuple[float, float, float]:
    """Milliseconds for the numbers that must move: forward, backward, double backward."""
    inputs = x + y + w
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


def check(peer: peers.Convolution, problem: str, edge_index: Tensor, inputs: list[Tensor]) -> float:
    """The relative error of the first target nodes against e3nn in float64.

    Raises:
        RuntimeError: it is too large to time what was computed.
    """
    kept = edge_index[1] < CHECKED_NODES
    x, y, w = (t.detach().double().cpu() for t in (inputs[0], inputs[1][kept], inputs[2][kept]))
    reference = peers.reference(problem)
    if peer.layout == "ir_mul":
        x = to_mul_ir(x, shape(reference.irreps_in))
    expected = reference((x, None), edge_index[:, kept].cpu(), y, w, size=(len(x), CHECKED_NODES))
    if peer.layout == "ir_mul":
        expected = to_ir_mul(expected, shape(reference.irreps_out))
    with torch.no_grad():
        result = peer.run(*inputs)[:CHECKED_NODES].double().cpu()
    error = ((result - expected).norm() / expected.norm()).item()
    if not error < TOLERANCE[inputs[0].dtype]:
        raise RuntimeError(f"{problem}: the output differs from e3nn's by {error:.1e}; it was not timed")
    return error
