"""The contraction as an operation of torch, for programs that are traced: compiled, exported, or run on tensors
without memory. It carries its problem as a string, so that a program runs in another process than it was traced in."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from cuda_kernels.contraction import Contraction, forward
from cuda_kernels.problem import Problem

from .._torch import below_autograd, in_forward_mode, is_recorded, recorded_once
from ..tensor_product import problem_of
from ._edges import EdgeList, Edges, Graph, listed_by_source
from ._formulas import gradients, tangents
from ._run import dtype_of, is_deterministic, run, walks_sources
from ._shapes import Shapes

FORWARD = "forward"
"""What the operation calls a problem's first contraction; others go by their spec."""


def traced_contraction(
    description: str, contraction: Contraction | None, operands: Sequence[Tensor], edges: Edges | None, deterministic
) -> list[Tensor]:
    """The outputs of a contraction, by default the forward, as a node of the program."""
    lists, sources, deterministic = None, 0, is_deterministic(deterministic)
    if edges is not None:
        sources = edges.sources
        differentiated = contraction is not None or any(operand.requires_grad for operand in operands)
        by_source = edges.by_source if differentiated and walks_sources(operands[0], deterministic) else ()
        lists = [*edges.by_target, *by_source]
    spec = FORWARD if contraction is None else contraction.spec
    return torch.ops.pyg_cgconv.contract(description, spec, list(operands), lists, sources, deterministic)


def _graph(lists: Sequence[Tensor] | None, sources: int) -> Graph | None:
    if lists is None:
        return None
    fields = len(EdgeList._fields)
    by_source = EdgeList(*lists[fields:]) if len(lists) > fields else None
    return Graph(EdgeList(*lists[:fields]), by_source, sources)


def _parsed(problem: Problem, contraction: str) -> Contraction:
    return forward(problem) if contraction == FORWARD else Contraction.parse(contraction)


def _contract_real(problem, contraction, operands, lists, sources, deterministic) -> list[Tensor]:
    known, graph = problem_of(problem, dtype_of(operands)), _graph(lists, sources)
    deterministic = is_deterministic(deterministic)
    has_to_walk_sources = contraction != FORWARD and walks_sources(operands[0], deterministic)
    if graph is not None and graph.by_source is None and has_to_walk_sources:
        # Of a program that did not foresee derivatives when it was traced.
        graph = graph._replace(by_source=listed_by_source(graph))
    return run(known, _parsed(known, contraction), operands, graph, deterministic)


def _contract_fake(problem, contraction, operands, lists, sources, deterministic) -> list[Tensor]:
    known = problem_of(problem, dtype_of(operands))
    shapes = Shapes(known, _parsed(known, contraction))
    rows = shapes.rows(operands, _graph(lists, sources))
    empty = operands[0].new_empty
    return [empty(shapes.result(output, rows), dtype=output.dtype) for output in shapes.outputs]


class _Recorded(torch.autograd.Function):
    """The operation with derivatives, which are such operations again: of operands, then lists of edges."""

    @staticmethod
    def forward(call, *tensors):
        operands, lists = call.split(tensors)
        return tuple(call.below_autograd(operands, lists))

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.call, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, *cotangents):
        operands, lists = ctx.call.split(ctx.saved_tensors)
        needed = ctx.needs_input_grad[1 : 1 + len(operands)]
        result = gradients(ctx.call.contraction, partial(ctx.call, lists=lists), operands, cotangents, needed)
        return None, *result, *[None] * len(lists or ())

    @staticmethod
    def jvp(ctx, _, *changes):
        operands, lists = ctx.call.split(ctx.saved_tensors)
        changes = changes[: len(operands)]
        return tuple(tangents(ctx.call.contraction, partial(ctx.call, lists=lists), operands, changes))


class _Call(NamedTuple):
    """What a call of the operation shares with its derivatives; `keys` are those of its dispatch."""

    keys: object
    problem: str
    contraction: Contraction
    operands: int
    has_graph: bool
    options: tuple

    def split(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor] | None]:
        return list(tensors[: self.operands]), list(tensors[self.operands :]) if self.has_graph else None

    def below_autograd(self, operands: Sequence[Tensor], lists: Sequence[Tensor] | None) -> list[Tensor]:
        operation, spec = torch.ops.pyg_cgconv.contract.default, self.contraction.spec
        return below_autograd(operation, self.keys, self.problem, spec, operands, lists, *self.options)

    def __call__(self, contraction: Contraction, operands: list[Tensor], lists: list[Tensor] | None) -> list[Tensor]:
        return torch.ops.pyg_cgconv.contract(self.problem, contraction.spec, operands, lists, *self.options)


@torch.compiler.disable
def _contract_autograd(keys, problem, contraction, operands, lists, *options) -> list[Tensor]:
    known = _parsed(problem_of(problem, "float32"), contraction)
    call = _Call(keys, problem, known, len(operands), lists is not None, options)
    if in_forward_mode() or is_recorded(operands):
        return list(recorded_once(_Recorded, call, *operands, *(lists or ())))
    return call.below_autograd(operands, lists)


def _contract_vmap(info, in_dims, problem, contraction, operands, lists, *options) -> tuple[list[Tensor], list[int]]:
    """One after the other: only programs that were traced come here."""
    results = []
    for n in range(info.batch_size):
        chosen = [t if dim is None else t.select(dim, n) for t, dim in zip(operands, in_dims[2], strict=True)]
        results.append(torch.ops.pyg_cgconv.contract(problem, contraction, chosen, lists, *options))
    outputs = [torch.stack(each) for each in zip(*results, strict=True)]
    return outputs, [0] * len(outputs)


_library = torch.library.Library("pyg_cgconv", "DEF")
_library.define(
    "contract(str problem, str contraction, Tensor[] operands, Tensor[]? edges, SymInt sources, bool deterministic) -> "
    "Tensor[]"
)
for _key in ("CPU", "CUDA"):
    _library.impl("contract", _contract_real, _key)
torch.library.register_fake("pyg_cgconv::contract", _contract_fake, lib=_library)
_library.impl("contract", _contract_autograd, "Autograd", with_keyset=True)
torch.library.register_vmap("pyg_cgconv::contract", _contract_vmap, lib=_library)
