"""One call for every problem, with derivatives of every order: each of them is a contraction again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cuda_kernels.contraction import Contraction, forward
from cuda_kernels.problem import Problem

from .._torch import (
    asked_for,
    has_autograd_batch,
    in_forward_mode,
    is_recorded,
    is_traced,
    is_transformed,
    recorder,
    unwrapped,
)
from ..tensor_product import describe, problem_of
from ._batch import batched, batched_by_autograd
from ._edges import Edges, Graph
from ._formulas import gradients, tangents
from ._operation import traced_contraction
from ._run import dtype_of, is_deterministic, run, walks_sources
from ._shapes import STORED

NAMES = {dtype: name for name, dtype in STORED.items()}


def contract(
    problem: str, operands: Sequence[Tensor], edges: Edges | None = None, deterministic: bool = False
) -> Tensor:
    """The output of a problem, differentiable any number of times, in reverse and in forward mode.

    Args:
        problem: its description (see `pyg_cgconv.tensor_product`).
        operands: its factors in order, each once; of one dtype, float32 or float64, and on one device. Beside float32,
            those of edges may be bfloat16 or float16. Rows by target, source or edge are (rows, length), a row for all
            is (length,).
        edges: the graph, for a problem that has one.
        deterministic: no atomic additions on a GPU (there are none on a CPU). Derivatives also follow
            `torch.use_deterministic_algorithms` as it is when they are computed.
    """
    first = operands[0].dtype
    if any([operand.dtype != first for operand in operands]):  # noqa: C419  (the faster)
        problem = describe.stored(problem, tuple(NAMES.get(operand.dtype) for operand in operands))
    if torch.compiler.is_compiling() and not in_forward_mode():
        return traced_contraction(problem, None, operands, edges, deterministic)[0]
    known = problem_of(problem, dtype_of(operands))
    call = Call(problem, known, edges, deterministic)
    return call(call.first, operands)[0]


class Call:
    """What the contractions of one call and of its derivatives share."""

    def __init__(self, description: str, problem: Problem, edges: Edges | None, deterministic: bool):
        self.description, self.problem, self.edges, self.deterministic = description, problem, edges, deterministic
        self.first = forward(problem)

    def on(self, description: str, edges: Edges | None) -> Call:
        """The same with another problem, on another graph."""
        return Call(description, problem_of(description, self.problem.dtype), edges, self.deterministic)

    def __call__(self, contraction: Contraction, operands: Sequence[Tensor]) -> Sequence[Tensor]:
        """The contraction's outputs, by what serves such tensors."""
        if is_transformed():
            return _Contract.apply(self, contraction, *operands)
        traced = is_traced(*operands)
        if in_forward_mode() or (not traced and is_recorded(operands)):
            return _record(self, contraction, *operands)
        return self.traced(contraction, operands) if traced else self.computed(contraction, operands)

    def derivative(self, contraction: Contraction, operands: Sequence[Tensor]) -> Sequence[Tensor]:
        """The same for a contraction that autograd asks for: whoever asks may have wrapped its operands."""
        operands = [unwrapped(operand) for operand in operands]
        if any([has_autograd_batch(operand) for operand in operands]):  # noqa: C419  (the faster)
            return batched_by_autograd(self, contraction, operands)
        return self(contraction, operands)

    def outputs(self, contraction: Contraction, operands: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The contraction's outputs; no derivatives are recorded, unless a program is traced."""
        return self.traced(contraction, operands) if is_traced(*operands) else self.computed(contraction, operands)

    def traced(self, contraction: Contraction, operands: Sequence[Tensor]) -> tuple[Tensor, ...]:
        spec = None if contraction is self.first else contraction
        return tuple(traced_contraction(self.description, spec, operands, self.edges, self.deterministic))

    def computed(self, contraction: Contraction, operands: Sequence[Tensor]) -> tuple[Tensor, ...]:
        edges, graph, deterministic = self.edges, None, is_deterministic(self.deterministic)
        if edges is not None:
            walked = contraction is not self.first and walks_sources(operands[0], deterministic)
            graph = Graph(edges.by_target, edges.by_source if walked else None, edges.sources)
        return tuple(run(self.problem, contraction, operands, graph, deterministic))


class _Contract(torch.autograd.Function):
    """A contraction as an autograd function, with itself as its derivatives. The dispatcher's way to an operation with
    lists of tensors takes longer than a small molecule's kernel."""

    @staticmethod
    def forward(call, contraction, *operands):
        return call.outputs(contraction, operands)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.call, ctx.contraction, *operands = inputs
        ctx.save_for_backward(*operands)
        ctx.save_for_forward(*operands)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, *cotangents):
        needed = asked_for(ctx, ctx.needs_input_grad[2:])
        return None, None, *gradients(ctx.contraction, ctx.call.derivative, ctx.saved_tensors, cotangents, needed)

    @staticmethod
    def jvp(ctx, call, contraction, *changes):
        return tuple(tangents(ctx.contraction, ctx.call.derivative, ctx.saved_tensors, changes))

    @staticmethod
    def vmap(info, in_dims, call, contraction, *operands):
        outputs = batched(call, contraction, operands, in_dims[2:], info.batch_size)
        return outputs, (0,) * len(outputs)


_record = recorder(_Contract)
