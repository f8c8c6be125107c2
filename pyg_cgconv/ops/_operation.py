"""The contraction as an operation of torch, for programs that are traced: compiled, exported, or run on tensors
without memory. It carries its problem as a string, so that a program runs in another process than it was traced in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cuda_kernels.contraction import Contraction, forward
from cuda_kernels.problem import Problem

from ..tensor_product import problem_of
from ._edges import EdgeList, Edges, Graph
from ._formulas import gradients
from ._run import DTYPES, run, walks_sources
from ._shapes import Shapes

FORWARD = "forward"
"""What the operation calls a problem's first contraction; others go by their spec."""


def traced_contraction(
    description: str, contraction: Contraction | None, operands: Sequence[Tensor], edges: Edges | None, deterministic
) -> list[Tensor]:
    """The outputs of a contraction, by default the forward, as a node of the program."""
    lists, sources = None, 0
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
    known = problem_of(problem, DTYPES[operands[0].dtype])
    return run(known, _parsed(known, contraction), operands, _graph(lists, sources), deterministic)


def _contract_fake(problem, contraction, operands, lists, sources, deterministic) -> list[Tensor]:
    known = problem_of(problem, "float32")
    shapes = Shapes(known, _parsed(known, contraction))
    rows = shapes.rows(operands, _graph(lists, sources))
    return [operands[0].new_empty(shapes.result(output, rows)) for output in shapes.outputs]


def _setup_context(ctx, inputs, output) -> None:
    ctx.problem, ctx.contraction, operands, lists, *ctx.options = inputs
    ctx.operands, ctx.has_graph = len(operands), lists is not None
    ctx.save_for_backward(*operands, *(lists or ()))
    ctx.set_materialize_grads(False)


def _backward(ctx, cotangents):
    operands = ctx.saved_tensors[: ctx.operands]
    lists = list(ctx.saved_tensors[ctx.operands :]) if ctx.has_graph else None

    def evaluate(derivative, operands):
        return torch.ops.pyg_cgconv.contract(ctx.problem, derivative.spec, operands, lists, *ctx.options)

    contraction = _parsed(problem_of(ctx.problem, "float32"), ctx.contraction)
    result = gradients(contraction, evaluate, operands, cotangents, ctx.needs_input_grad[2])
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
