"""A contraction on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from cuda_kernels import linear
from cuda_kernels.contraction import Contraction
from cuda_kernels.cuda.driver import ensure_context
from cuda_kernels.cuda.launch import LinearPart, Walk
from cuda_kernels.cuda.staging import WIDE
from cuda_kernels.linear import Part
from cuda_kernels.passes import Pass, owned_passes, single_pass, zeroed_outputs
from cuda_kernels.problem import Index, Problem

from .._torch import current_device, current_stream
from ._edges import Graph


def contract(
    problem: Problem,
    contraction: Contraction,
    inputs: Sequence[Tensor],
    graph,
    rows: dict[Index, int],
    deterministic: bool,
) -> list[Tensor]:
    """The contraction's outputs, from tensors in the order of its inputs; no gradients are recorded.

    Args:
        graph: the problem's `Graph`, if it has one; its list by source is only read if `deterministic`.
        rows: of operands, by their index.
    """
    device = inputs[0].get_device()
    if device != current_device():
        with torch.cuda.device(device):
            return contract(problem, contraction, inputs, graph, rows, deterministic)
    ensure_context(device)
    return _plan(problem, contraction, deterministic, device)(_aligned(inputs), graph, rows)


def _aligned(inputs: Sequence[Tensor]) -> list[Tensor]:
    """Contiguous, and where the widest copies may begin."""
    tensors = [t if t.is_contiguous() else t.contiguous() for t in inputs]
    return [t if t.data_ptr() % WIDE == 0 else t.clone() for t in tensors]


@cache
def _plan(problem: Problem, contraction: Contraction, deterministic: bool, device: int) -> _Walks | _Products:
    """All that does not change from call to call. A small molecule's kernel takes less time than the call before it."""
    if problem.mixes:
        return _Products(problem, contraction, device)
    passes = owned_passes if deterministic else single_pass
    return _Walks(problem, passes(problem, contraction), contraction.inputs, contraction.outputs, device)


class _Output(NamedTuple):
    """An output of a pass; `is_zeroed` if it must be zero before the pass."""

    name: str
    index: Index
    length: int
    is_zeroed: bool


class _Walks:
    """Passes over a problem's sites."""

    def __init__(self, problem: Problem, passes: tuple[Pass, ...], inputs, outputs, device: int):
        self.device, self.outputs, self.passes = device, outputs, []
        for walk in passes:
            reads = [inputs.index(name) for name in walk.contraction.inputs]
            zeroed = zeroed_outputs(problem, walk.contraction, walk.by)
            writes = [
                _Output(name, problem.operand(name).index, problem.row(name).length, name in zeroed)
                for name in walk.contraction.outputs
            ]
            self.passes.append((walk.by, Walk(problem, walk, device), reads, writes))

    def __call__(self, inputs: list[Tensor], graph: Graph | None, rows: dict[Index, int]) -> list[Tensor]:
        addresses = [t.data_ptr() for t in inputs]
        empty, zeros = inputs[0].new_empty, inputs[0].new_zeros
        stream = current_stream(self.device)
        outputs: dict[str, Tensor] = {}
        for by, walk, reads, writes in self.passes:
            lists = None if graph is None else graph.by_source if by is Index.SOURCE else graph.by_target
            further = 0 if lists is None else lists.continuing.shape[0]
            partials = []
            for name, index, length, is_zeroed in writes:
                make = zeros if is_zeroed else empty
                outputs[name] = make((rows[index], length))
                if further and index is by:
                    partials.append(make((further, length)))
            read, written = [addresses[n] for n in reads], [outputs[name].data_ptr() for name, *_ in writes]
            if lists is None:
                walk.over_rows(read, written, rows[by], stream)
            else:
                partial, listed = [t.data_ptr() for t in partials], [t.data_ptr() for t in lists]
                walk.over_graph(read, written, partial, listed, rows[by] + further, further, stream)
        return [outputs[name] for name in self.outputs]


class _Products:
    """The matrix products of a linear map, with their tables on the device."""

    def __init__(self, problem: Problem, contraction: Contraction, device: int):
        self.device, self.outputs, self.steps = device, contraction.outputs, []
        self.shapes = {name: (problem.operand(name).index, problem.row(name).length) for name in contraction.outputs}
        for product in linear.products(contraction):
            operands = [contraction.inputs.index(name) for name in (product.left, product.right)]
            self.steps.append((product, operands, *_part(problem, product.part, device)))

    def __call__(self, inputs: list[Tensor], graph: Graph | None, rows: dict[Index, int]) -> list[Tensor]:
        nodes, stream = rows[Index.EDGE], current_stream(self.device)
        outputs: dict[str, Tensor] = {}
        for product, (left, right), launch, tables in self.steps:
            index, length = self.shapes[product.output]
            out = inputs[0].new_empty((length,) if index is Index.ONE else (nodes, length))
            other = inputs[right] if product.part is Part.WEIGHTS else out
            operands = inputs[left].data_ptr(), inputs[right].data_ptr(), out.data_ptr()
            addresses = [table.data_ptr() for table in tables]
            launch(operands, addresses, nodes, inputs[left].shape[1], other.shape[1], stream)
            outputs[product.output] = out if product.output not in outputs else outputs[product.output] + out
        return [outputs[name] for name in self.outputs]


@cache
def _part(problem: Problem, part: Part, device: int) -> tuple[LinearPart, list[Tensor]]:
    """A part of a linear map, and its tables."""
    table = linear.table(problem, part)
    tables = [torch.from_numpy(array).to(f"cuda:{device}") for array in table]
    return LinearPart(part, table, problem.dtype, device), tables
