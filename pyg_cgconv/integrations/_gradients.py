"""Gradients of a loss by a model's parameters, with both ways through the model captured in CUDA graphs."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..cuda_graphs import capturing


class Backward(NamedTuple):
    """A graph from gradients of results to gradients of parameters.

    Attributes:
        names: The results that have gradients.
        given: Theirs, which the graph reads.
        results: Those of the parameters, which it writes; None of one that nothing depends on.
    """

    graph: torch.cuda.CUDAGraph
    names: list[str]
    given: list[Tensor]
    results: list[Tensor | None]


def captured_backward(
    results: Mapping[str, Tensor | None], leaves: Sequence[Tensor], stream: torch.cuda.Stream, pool: Any
) -> Backward:
    """Of results that have just been captured. Their graph keeps what this one reads in the memory of the pool."""
    differentiable = {name: value for name, value in results.items() if value is not None and value.requires_grad}
    given = [torch.zeros_like(value) for value in differentiable.values()]
    with capturing(stream, pool) as graph:
        found = gradients(list(differentiable.values()), leaves, given)
    return Backward(graph, list(differentiable), given, found)


def gradients(results: Sequence[Tensor], leaves: Sequence[Tensor], given: Sequence[Tensor]) -> list[Tensor | None]:
    """Those of the leaves, of those of the results."""
    return list(torch.autograd.grad(results, leaves, given, allow_unused=True))


class Turns:
    """Whose intermediate results the memory of captured graphs holds: those of one call, until its gradients have been
    computed or nobody can ask for them."""

    def __init__(self) -> None:
        self._last: weakref.ref[Turn] | None = None

    def begin(self) -> Turn:
        turn = Turn()
        self._last = weakref.ref(turn)
        return turn

    @property
    def is_taken(self) -> bool:
        turn = None if self._last is None else self._last()
        return turn is not None and not turn.is_over


class Turn:
    """That of one call."""

    is_over = False


class Differentiable(torch.autograd.Function):
    """Results of a graph, whose gradients by parameters another graph computes. It is applied to all parameters, so
    that autograd knows on what they depend."""

    @staticmethod
    def forward(
        ctx: Any,
        forward: torch.cuda.CUDAGraph,
        read: Sequence[Tensor],
        backward: Backward,
        turn: Turn,
        *parameters: Tensor,
    ):
        """Copies of the results in ``read``, after a replay."""
        ctx.backward, ctx.turn = backward, turn
        ctx.save_for_backward(*parameters)
        ctx.set_materialize_grads(False)
        forward.replay()
        return tuple([result.clone() for result in read])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *incoming: Tensor | None):
        if ctx.turn.is_over:
            raise RuntimeError(
                "cuda_graphs: the gradients of this call have been computed, and what they are computed from is gone. "
                "Call the model again, or accelerate it with cuda_graphs=False, which knows retain_graph"
            )
        ctx.saved_tensors  # noqa: B018  (an error if parameters have changed since, which the graph reads again)
        ctx.turn.is_over = True
        graph, _, given, results = ctx.backward
        for target, gradient in zip(given, incoming, strict=True):
            if gradient is None:
                target.zero_()
            else:
                target.copy_(gradient)
        graph.replay()
        return None, None, None, None, *[None if result is None else result.clone() for result in results]
