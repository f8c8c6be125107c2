"""A batch of equal contractions, as torch.vmap asks for it: one contraction of more rows, on copies of the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cuda_kernels.contraction import Contraction
from cuda_kernels.problem import Index, Problem

from .._torch import add_autograd_batch, autograd_batch_level, has_autograd_batch, remove_autograd_batch
from ..tensor_product import describe

if TYPE_CHECKING:
    from ._contract import Call


def batched(
    call: Call, contraction: Contraction, operands: Sequence[Tensor], dims: Sequence[int | None], size: int
) -> tuple[Tensor, ...]:
    """The outputs of `size` contractions, each with the batch as its first dimension.

    Args:
        operands: as those of one contraction, with a further dimension.
        dims: which one that is; None where all contractions have the same operand.
    """
    rows = [operand if dim is None else operand.movedim(dim, 0) for operand, dim in zip(operands, dims, strict=True)]
    is_batched = [dim is not None for dim in dims]
    if not size:
        return _none_of(call, contraction, rows, is_batched)
    if not _has_own_row(call.problem, contraction, is_batched):
        sites = None
    elif call.problem.is_linear_map:
        return _one_by_one(call, contraction, rows, is_batched, size)
    else:
        sites = _sites(call, contraction, rows, is_batched)
    stacked = [
        _stacked(operand, has, size, sites, call.problem.operand(name).index is Index.ONE)
        for name, operand, has in zip(contraction.inputs, rows, is_batched, strict=True)
    ]
    edges = None if call.edges is None else call.edges.repeated(size)
    description = call.description if sites is None else describe.with_own_weights(call.description)
    outputs = call.on(description, edges).derivative(contraction, stacked)
    return tuple(
        _summed(output.reshape(size, output.shape[0] // size, output.shape[1]), call.problem, name)
        for name, output in zip(contraction.outputs, outputs, strict=True)
    )


def _none_of(
    call: Call, contraction: Contraction, rows: Sequence[Tensor], is_batched: Sequence[bool]
) -> tuple[Tensor, ...]:
    """Those of an empty batch. They have the rows that a contraction would have."""
    one = [
        operand.new_zeros(1, *operand.shape[1:]) if has else operand
        for operand, has in zip(rows, is_batched, strict=True)
    ]
    outputs = batched(call, contraction, one, [0 if has else None for has in is_batched], 1)
    return tuple(output[:0] for output in outputs)


def batched_by_autograd(call: Call, contraction: Contraction, operands: Sequence[Tensor]) -> Sequence[Tensor]:
    """The same for the older vmap that autograd itself has; the batches of operands and outputs are hidden ones."""
    hidden = [has_autograd_batch(operand) for operand in operands]
    level = autograd_batch_level(operands[hidden.index(True)])
    rows = [remove_autograd_batch(t, level) if is_hidden else t for t, is_hidden in zip(operands, hidden, strict=True)]
    size = max(t.shape[0] for t, is_hidden in zip(rows, hidden, strict=True) if is_hidden)
    rows = [t.expand(size, *t.shape[1:]) if is_hidden else t for t, is_hidden in zip(rows, hidden, strict=True)]
    outputs = batched(call, contraction, rows, [0 if is_hidden else None for is_hidden in hidden], size)
    return [add_autograd_batch(output, level) for output in outputs]


def _has_own_row(problem: Problem, contraction: Contraction, is_batched: Sequence[bool]) -> bool:
    """Whether a row that all sites share differs between the contractions, or is a result of each."""
    given = [name for name, has in zip(contraction.inputs, is_batched, strict=True) if has]
    return any(problem.operand(name).index is Index.ONE for name in (*given, *contraction.outputs))


def _sites(call: Call, contraction: Contraction, rows: Sequence[Tensor], is_batched: Sequence[bool]) -> int:
    if call.edges is not None:
        return call.edges.num_edges
    by_site = (
        operand.shape[1 if has else 0]
        for name, operand, has in zip(contraction.inputs, rows, is_batched, strict=True)
        if call.problem.operand(name).index is Index.EDGE
    )
    return next(by_site)


def _stacked(operand: Tensor, has_batch: bool, size: int, sites: int | None, is_shared: bool) -> Tensor:
    """The rows of all contractions, one below the other. A row that all sites share is given to each of `sites`, or
    left as it is if that is None."""
    if is_shared:
        if sites is None:
            return operand
        operand = operand.unsqueeze(-2).expand(*operand.shape[:-1], sites, operand.shape[-1])
    if not has_batch:
        operand = operand.expand(size, *operand.shape)
    return operand.reshape(operand.shape[0] * operand.shape[1], operand.shape[2])  # the older vmap cannot flatten


def _summed(output: Tensor, problem: Problem, name: str) -> Tensor:
    """The gradient by a row that all sites of a contraction share is the sum over these."""
    return output.sum(1) if problem.operand(name).index is Index.ONE else output


def _one_by_one(
    call: Call, contraction: Contraction, rows: Sequence[Tensor], is_batched: Sequence[bool], size: int
) -> tuple[Tensor, ...]:
    """For linear maps with weights of their own, which no kernel has."""
    results = []
    for n in range(size):
        operands = [operand[n] if has else operand for operand, has in zip(rows, is_batched, strict=True)]
        results.append(call.derivative(contraction, operands))
    return tuple(torch.stack(outputs) for outputs in zip(*results, strict=True))
