"""A contraction on a GPU."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from cuda_kernels import linear
from cuda_kernels.contraction import Contraction
from cuda_kernels.cuda.driver import ensure_context
from cuda_kernels.cuda.launch import LinearPart, Walk
from cuda_kernels.cuda.staging import WIDE, can_be_read
from cuda_kernels.linear import Part
from cuda_kernels.passes import owned_passes, single_pass, zeroed_outputs
from cuda_kernels.problem import Index, Problem

from .._torch import current_device, current_stream
from ..cuda_graphs import aside
from ._edges import Graph
from ._plan import Plan, Widened
from ._shapes import ROWS, Shapes, outputs


def plan(problem: Problem, contraction: Contraction, deterministic: bool, device: int) -> Plan:
    """What computes a contraction on this GPU."""
    with torch.cuda.device(device):
        ensure_context(device)
        return plan_here(problem, contraction, deterministic, device)


def plan_here(problem: Problem, contraction: Contraction, deterministic: bool, device: int) -> Plan:
    """The same, where the GPU is the current one."""
    if problem.is_linear_map:
        return _Products(problem, contraction, device)
    known = problem.stored(tuple((o.name, None) for o in problem.operands if not can_be_read(problem, o.name)))
    found = _Plan(known, contraction, deterministic, device)
    return found if known is problem else Widened(found, problem, known, contraction)


def _aligned(inputs: Sequence[Tensor]) -> list[Tensor]:
    """Contiguous, and where the widest copies may begin."""
    tensors = [t if t.is_contiguous() else t.contiguous() for t in inputs]
    return [t if t.data_ptr() % WIDE == 0 else t.clone() for t in tensors]


class _OnDevice(ABC):
    """Runs on its device, whatever is the current one."""

    def __init__(self, device: int):
        self.device = device

    def __call__(self, inputs: Sequence[Tensor], graph: Graph | None) -> list[Tensor]:
        if self.device != current_device():
            with torch.cuda.device(self.device):
                return self(inputs, graph)
        ensure_context(self.device)
        return self.run(_aligned(inputs), graph, current_stream(self.device))

    @abstractmethod
    def run(self, inputs: list[Tensor], graph: Graph | None, stream: int) -> list[Tensor]:
        """The outputs, from aligned tensors on this device, by kernels on this stream."""


class _Plan(_OnDevice):
    """Passes over a problem's sites."""

    def __init__(self, problem: Problem, contraction: Contraction, deterministic: bool, device: int):
        super().__init__(device)
        self._shapes, self._outputs, self._passes = Shapes(problem, contraction), contraction.outputs, []
        for walk in (owned_passes if deterministic else single_pass)(problem, contraction):
            reads = [contraction.inputs.index(name) for name in walk.contraction.inputs]
            zeroed = zeroed_outputs(problem, walk.contraction, walk.by)
            writes = [(output, output.name in zeroed) for output in outputs(problem, walk.contraction.outputs)]
            self._passes.append((walk.by is Index.SOURCE, ROWS[walk.by], Walk(problem, walk, device), reads, writes))

    def run(self, inputs: list[Tensor], graph: Graph | None, stream: int) -> list[Tensor]:
        addresses, rows = [t.data_ptr() for t in inputs], self._shapes.rows(inputs, graph)
        empty, zeros = inputs[0].new_empty, inputs[0].new_zeros
        results: dict[str, Tensor] = {}
        for by_source, by, walk, reads, writes in self._passes:
            lists = None if graph is None else graph.by_source if by_source else graph.by_target
            further = 0 if lists is None else lists.continuing.shape[0]
            partials = []
            for (name, number, length, _, dtype), is_zeroed in writes:
                make = zeros if is_zeroed else empty
                results[name] = make((rows[number], length), dtype=dtype)
                if further and number == by:
                    partials.append(make((further, length)))
            read, written = [addresses[n] for n in reads], [results[output.name].data_ptr() for output, _ in writes]
            if lists is None:
                walk.over_rows(read, written, rows[by], stream)
            else:
                partial, listed = [t.data_ptr() for t in partials], [t.data_ptr() for t in lists]
                walk.over_graph(read, written, partial, listed, rows[by] + further, further, stream)
        return self._shapes.sum_shared([results[name] for name in self._outputs])


class _Products(_OnDevice):
    """The matrix products of a linear map, with their tables on the device."""

    def __init__(self, problem: Problem, contraction: Contraction, device: int):
        super().__init__(device)
        self._shapes, self._steps = Shapes(problem, contraction), []
        for product in linear.products(contraction):
            left, right = (contraction.inputs.index(name) for name in (product.left, product.right))
            out = contraction.outputs.index(product.output)
            self._steps.append((product.part, left, right, out, *_part(problem, product.part, device)))

    def run(self, inputs: list[Tensor], graph: Graph | None, stream: int) -> list[Tensor]:
        rows = self._shapes.rows(inputs, graph)
        first, *others = self._steps
        begun = [aside(self._product, step, rows, *inputs) for step in others]
        results = [self._product(first, rows, *inputs)]
        for (*_, number, _, _), product in zip(others, begun, strict=True):  # one output after the other
            if number == len(results):
                results.append(product())
            else:
                results[number] = results[number] + product()
        return results

    def _product(self, step: _Step, rows: tuple[int, int, int], *inputs: Tensor) -> Tensor:
        part, left, right, number, launch, tables = step
        out = inputs[0].new_empty(self._shapes.result(self._shapes.outputs[number], rows))
        other = inputs[right] if part is Part.WEIGHTS else out
        operands = inputs[left].data_ptr(), inputs[right].data_ptr(), out.data_ptr()
        addresses = [table.data_ptr() for table in tables]
        launch(operands, addresses, rows[-1], inputs[left].shape[1], other.shape[1], current_stream(self.device))
        return out


_Step = tuple[Part, int, int, int, LinearPart, list[Tensor]]
"""A part, the numbers of the two inputs that it reads and of its output, its kernel and what that reads, too."""


@cache
def _part(problem: Problem, part: Part, device: int) -> tuple[LinearPart, list[Tensor]]:
    """A part of a linear map, and its tables."""
    table = linear.table(problem, part)
    tables = [torch.from_numpy(array).to(f"cuda:{device}") for array in table]
    return LinearPart(part, table, problem.dtype, device), tables
