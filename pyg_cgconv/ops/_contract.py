"""One torch operation for every problem and every order of derivative: its autograd formula is the operation itself
with the next contraction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import NamedTuple

import torch
from torch import Tensor

from cuda_kernels.contraction import Contraction, forward
from cuda_kernels.problem import Index, Problem

from .._torch import is_plain, recorder
from ..tensor_product import problem_of
from ._edges import EdgeList, Edges, Graph
from ._plan import Plan
from ._shapes import Shapes

DTYPES = {torch.float32: "float32", torch.float64: "float64"}
FORWARD = "forward"
"""What the operation calls a problem's first contraction; others go by their spec."""


def contract(
    problem: str, operands: Sequence[Tensor], edges: Edges | None = None, deterministic: bool = False
) -> Tensor:
    """The output of a problem, differentiable any number of times.

    Args:
        problem: its description (see `pyg_cgconv.tensor_product`).
        operands: its factors in order, each once; of one dtype, float32 or float64, and on one device. Rows by target,
            source or edge are (rows, length), a row for all is (length,).
        edges: the graph, for a problem that has one.
        deterministic: no atomic additions on a GPU (there are none on a CPU).
    """
    needs_grad = torch.is_grad_enabled() and any([t.requires_grad for t in operands])  # noqa: C419  (the faster)
    if not is_plain(*operands):
        lists = None if edges is None else _lists(edges, needs_grad and _walks_sources(operands[0], deterministic))
        sources = 0 if edges is None else edges.sources
        (out,) = torch.ops.pyg_cgconv.contract(problem, FORWARD, list(operands), lists, sources, deterministic)
        return out
    known = problem_of(problem, DTYPES[operands[0].dtype])
    call = _record if needs_grad else _contract
    (out,) = call(known, forward(known), edges, deterministic, *operands)
    return out


def _walks_sources(operand: Tensor, deterministic: bool) -> bool:
    """Whether derivatives walk the edges by source, too, instead of adding to source nodes atomically."""
    return deterministic or not operand.is_cuda


def _lists(edges: Edges, by_source: bool) -> list[Tensor]:
    """The lists as an operation takes them: one after the other."""
    return [*edges.by_target, *(edges.by_source if by_source else ())]


def _graph(lists: Sequence[Tensor] | None, sources: int) -> Graph | None:
    if lists is None:
        return None
    fields = len(EdgeList._fields)
    by_source = EdgeList(*lists[fields:]) if len(lists) > fields else None
    return Graph(EdgeList(*lists[:fields]), by_source, sources)


def _contract(problem: Problem, contraction: Contraction, edges: Edges | None, deterministic: bool, *operands: Tensor):
    graph = None
    if edges is not None:
        differentiated = contraction is not forward(problem)
        by_source = edges.by_source if differentiated and _walks_sources(operands[0], deterministic) else None
        graph = Graph(edges.by_target, by_source, edges.sources)
    return tuple(run(problem, contraction, operands, graph, deterministic))


class _Contract(torch.autograd.Function):
    """The operation as an autograd function, with itself as its derivative. The dispatcher's way to an operation with
    lists of tensors takes longer than a small molecule's kernel."""

    @staticmethod
    def forward(ctx, problem, contraction, edges, deterministic, *operands):
        ctx.call = problem, contraction, edges, deterministic
        ctx.save_for_backward(*operands)
        ctx.set_materialize_grads(False)
        return _contract(problem, contraction, edges, deterministic, *operands)

    @staticmethod
    def backward(ctx, *gradients):
        problem, contraction, edges, deterministic = ctx.call

        def contract(derivative, operands):
            call = _record if torch.is_grad_enabled() else _contract
            return call(problem, derivative, edges, deterministic, *operands)

        needed = ctx.needs_input_grad[4:]
        return None, None, None, None, *_gradients(contraction, ctx.saved_tensors, gradients, needed, contract)


_record = recorder(_Contract)


def _gradients(contraction: Contraction, operands, gradients, needed, contract: Callable) -> list[Tensor | None]:
    """The gradient of each operand that needs one, by calling `contract(derivative, operands)`."""
    given = tuple(g is not None for g in gradients)
    derivative, argument_index, gradient_index = _derivative(contraction, given, tuple(needed))
    if not derivative.outputs:
        return [None] * len(gradient_index)
    values = (*operands, *gradients)
    outputs = contract(derivative, [values[n] for n in argument_index])
    return [None if n is None else outputs[n] for n in gradient_index]


class _Formula(NamedTuple):
    """A derivative, and where its operands come from and its outputs go to.

    `argument_index[n]` says where input n of the derivative stands in (*inputs, *gradients of the outputs);
    `gradient_index[n]` which output is the gradient of input n, or None.
    """

    derivative: Contraction
    argument_index: list[int]
    gradient_index: list[int | None]


@cache
def _derivative(contraction: Contraction, given: tuple[bool, ...], needed: tuple[bool, ...]) -> _Formula:
    """The derivative by the inputs that are `needed`, where only `given` outputs have a gradient."""
    cotangents = tuple(name for name, has in zip(contraction.outputs, given, strict=True) if has)
    wanted = tuple(name for name, need in zip(contraction.inputs, needed, strict=True) if need)
    derivative, names = contraction.derivative(cotangents, wanted)
    known = [*contraction.inputs, *(names.get(output) for output in contraction.outputs)]
    arguments = [len(known) - 1 - known[::-1].index(name) for name in derivative.inputs]
    outputs = {name: n for n, name in enumerate(derivative.outputs)}
    return _Formula(derivative, arguments, [outputs.get(name) for name in contraction.inputs])


def run(
    problem: Problem, contraction: Contraction, operands: Sequence[Tensor], graph: Graph | None, deterministic: bool
) -> list[Tensor]:
    """The outputs of a contraction, from tensors in the order of its inputs; no gradients are recorded."""
    return _plan(problem, contraction, deterministic, operands[0].get_device())(operands, graph)


@cache
def _plan(problem: Problem, contraction: Contraction, deterministic: bool, device: int) -> Plan:
    """All that does not change from call to call. A small molecule's kernel takes less time than the call before it.

    On a GPU nobody pays for importing numba, and on a CPU nobody needs the CUDA driver's bindings.
    """
    backend = import_module("._cpu" if device < 0 else "._cuda", __package__)
    return backend.plan(problem, contraction, deterministic, device)


def _parsed(problem: Problem, contraction: str) -> Contraction:
    return forward(problem) if contraction == FORWARD else Contraction.parse(contraction)


def _contract_real(problem, contraction, operands, lists, sources, deterministic) -> list[Tensor]:
    known = problem_of(problem, DTYPES[operands[0].dtype])
    return run(known, _parsed(known, contraction), operands, _graph(lists, sources), deterministic)


def _contract_fake(problem, contraction, operands, lists, sources, deterministic) -> list[Tensor]:
    known = problem_of(problem, "float32")
    parsed = _parsed(known, contraction)
    shapes = Shapes(known, parsed)
    rows = shapes.rows(operands, _graph(lists, sources))
    outputs = []
    for name, number, length in shapes.outputs:
        is_shared = known.operand(name).index is Index.ONE
        outputs.append(operands[0].new_empty((length,) if is_shared else (rows[number], length)))
    return outputs


def _setup_context(ctx, inputs, output) -> None:
    ctx.problem, ctx.contraction, operands, lists, *ctx.options = inputs
    ctx.operands, ctx.has_graph = len(operands), lists is not None
    ctx.save_for_backward(*operands, *(lists or ()))
    ctx.set_materialize_grads(False)


def _backward(ctx, gradients):
    operands = ctx.saved_tensors[: ctx.operands]
    lists = list(ctx.saved_tensors[ctx.operands :]) if ctx.has_graph else None

    def contract(derivative, operands):
        return torch.ops.pyg_cgconv.contract(ctx.problem, derivative.spec, operands, lists, *ctx.options)

    needed = ctx.needs_input_grad[2]
    contraction = _parsed(problem_of(ctx.problem, "float32"), ctx.contraction)
    result = _gradients(contraction, operands, gradients, needed, contract)
    return None, None, result, None if lists is None else [None] * len(lists), None, None


_library = torch.library.Library("pyg_cgconv", "DEF")
_library.define(
    "contract(str problem, str contraction, Tensor[] operands, Tensor[]? edges, SymInt sources, bool deterministic) -> "
    "Tensor[]"
)
for _key in ("CPU", "CUDA"):
    _library.impl("contract", _contract_real, _key)
torch.library.register_fake("pyg_cgconv::contract", _contract_fake, lib=_library)
torch.library.register_autograd("pyg_cgconv::contract", _backward, setup_context=_setup_context, lib=_library)
