"""A contraction on a CPU."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from cuda_kernels import linear
from cuda_kernels.contraction import Contraction
from cuda_kernels.cpu.launch import PowersWalks, Transposition, Walks
from cuda_kernels.linear import Part
from cuda_kernels.passes import owned_passes
from cuda_kernels.problem import Block, Index, Problem

from ._edges import Graph
from ._memory import POOL
from ._plan import Plan, Widened
from ._shapes import ROWS, Shapes


def plan(problem: Problem, contraction: Contraction, deterministic: bool, device: int) -> Plan:
    """What computes a contraction on a CPU."""
    if problem.is_linear_map:
        return _Products(problem, contraction)
    known = problem.stored(tuple((operand.name, None) for operand in problem.operands))
    found = _Plan(known, contraction)
    return found if known is problem else Widened(found, problem, known, contraction)


class _Plan:
    """Passes over a problem's sites."""

    def __init__(self, problem: Problem, contraction: Contraction):
        self._shapes, inputs, outputs = Shapes(problem, contraction), contraction.inputs, contraction.outputs
        passes = owned_passes(problem, contraction)
        self._walks = (PowersWalks if problem.is_polynomial else Walks)(problem, passes)
        self._incomplete = [n for n, name in enumerate(outputs) if not problem.covers(name)]
        compact = problem.component_major()
        self._transpositions = [
            (n, Transposition(problem, name))
            for n, name in enumerate(inputs)
            if problem.row(name) != compact.row(name) and not problem.is_polynomial
        ]
        self._passes = []
        for by, part in passes:
            reads, writes = [inputs.index(name) for name in part.inputs], [outputs.index(name) for name in part.outputs]
            self._passes.append((by is Index.SOURCE, ROWS[by], reads, writes))

    def __call__(self, inputs: Sequence[Tensor], graph: Graph | None) -> list[Tensor]:
        threads, rows = torch.get_num_threads(), self._shapes.rows(inputs, graph)
        values, dtype = [tensor.contiguous() for tensor in inputs], inputs[0].dtype
        for n, transpose in self._transpositions:
            source, target = values[n], POOL.empty(values[n].shape, dtype)
            transpose(source.data_ptr(), target.data_ptr(), source.shape[0], threads)
            values[n] = target
        results = [POOL.empty((rows[output.rows], output.length), dtype) for output in self._shapes.outputs]
        for n in self._incomplete:
            results[n].zero_()
        read, written = _addresses(values), _addresses(results)
        operands = []
        for by_source, by, reads, writes in self._passes:
            lists: tuple[int, ...] = (0, 0, 0)
            if graph is not None:
                # Who walks by source has been given that list.
                starts, _, edges, others, _ = graph.by_source if by_source else graph.by_target  # type: ignore[misc]
                lists = starts.data_ptr(), edges.data_ptr(), others.data_ptr()
            operands.append((tuple([read[n] for n in reads]), tuple([written[n] for n in writes]), lists, rows[by]))
        self._walks(operands, rows[ROWS[Index.EDGE]], threads)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)  # numba's OpenMP pool sets that of the library which both may have loaded
        return self._shapes.sum_shared(results)


def _compute_alone() -> None:
    """In a forked process, whose torch would wait for ever for threads that it has not."""
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_compute_alone)


def _addresses(tensors: Iterable[Tensor]) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]


class _Products:
    """A linear map's products: a library's matrix products serve a CPU well."""

    def __init__(self, problem: Problem, contraction: Contraction):
        self._problem, self._contraction, self._shapes = problem, contraction, Shapes(problem, contraction)
        self._products, self._steps = linear.products(contraction), linear.steps(problem)

    def __call__(self, inputs: Sequence[Tensor], graph: Graph | None) -> list[Tensor]:
        rows = self._shapes.rows(inputs, graph)
        values = dict(zip(self._contraction.inputs, inputs, strict=True))
        shapes = self._shapes
        results = {output.name: inputs[0].new_zeros(shapes.result(output, rows)) for output in shapes.outputs}
        for product in self._products:
            out, left, right = results[product.output], values[product.left], values[product.right]
            for step in self._steps:
                _add(product.part, step, out, left, right)
        return list(results.values())


def _add(part: Part, step: linear.Step, out: Tensor, left: Tensor, right: Tensor) -> None:
    """out += the step's product of left and right."""
    source, target, weights, factor = step
    shape = source.multiplicity, target.multiplicity
    w = slice(weights.offset, weights.offset + shape[0] * shape[1])
    if part is Part.MAP:
        _block(out, target).add_(_block(left, source) @ right[w].view(shape), alpha=factor)
    elif part is Part.TRANSPOSE:
        _block(out, source).add_(_block(left, target) @ right[w].view(shape).mT, alpha=factor)
    else:
        x, g = _block(left, source).flatten(0, 1), _block(right, target).flatten(0, 1)
        out[w].view(shape).add_(x.mT @ g, alpha=factor)


def _block(rows: Tensor, block: Block) -> Tensor:
    """(n, dim, multiplicity), component-major; a view."""
    length = block.dim * block.multiplicity
    return rows[:, block.offset : block.offset + length].unflatten(1, (block.dim, block.multiplicity))
