"""A contraction on a CPU."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from cuda_kernels import linear
from cuda_kernels.contraction import Contraction
from cuda_kernels.cpu import launch
from cuda_kernels.linear import Part
from cuda_kernels.passes import owned_passes
from cuda_kernels.problem import Index, Problem

from ._memory import POOL


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
        graph: the problem's `Graph`, if it has one.
        rows: of operands, by their index.
    """
    if problem.mixes:
        return _matrix_products(problem, contraction, inputs, rows[Index.EDGE])
    threads = torch.get_num_threads()
    values = {
        name: _component_major(problem, name, value.contiguous(), threads)
        for name, value in zip(contraction.inputs, inputs, strict=True)
    }
    outputs = {
        name: POOL.empty((rows[problem.operand(name).index], problem.row(name).length), inputs[0].dtype)
        for name in contraction.outputs
    }
    passes = owned_passes(problem, contraction)
    operands = []
    for by, part in passes:
        lists: tuple[int, ...] = (0, 0, 0)
        if graph is not None:
            listed = graph.by_source if by is Index.SOURCE else graph.by_target
            lists = _addresses((listed.starts, listed.edges, listed.others))
        read, written = (values[name] for name in part.inputs), (outputs[name] for name in part.outputs)
        operands.append((_addresses(read), _addresses(written), lists, rows[by]))
    launch.launch(problem, passes, operands, rows[Index.EDGE], threads)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)  # numba's OpenMP pool sets that of the library which both may have loaded
    return list(outputs.values())


def _component_major(problem: Problem, name: str, value: Tensor, threads: int) -> Tensor:
    """The operand's rows in the order in which the kernels read them."""
    if problem.row(name) == problem.component_major().row(name):
        return value
    result = POOL.empty(value.shape, value.dtype)
    launch.to_component_major(problem, name, value.data_ptr(), result.data_ptr(), value.shape[0], threads)
    return result


def _addresses(tensors: Iterable[Tensor]) -> tuple[int, ...]:
    return tuple(tensor.data_ptr() for tensor in tensors)


def _matrix_products(problem: Problem, contraction: Contraction, inputs: Sequence[Tensor], rows: int) -> list[Tensor]:
    """A linear map's contraction: a library's matrix products serve a CPU well."""
    values = dict(zip(contraction.inputs, inputs, strict=True))
    outputs = {}
    for name in contraction.outputs:
        operand = problem.operand(name)
        shape = (operand.row.length,) if operand.index is Index.ONE else (rows, operand.row.length)
        outputs[name] = inputs[0].new_zeros(shape)
    for product in linear.products(contraction):
        left, right, out = values[product.left], values[product.right], outputs[product.output]
        for source, target, weight, factor in linear.steps(problem):
            u, v = source.multiplicity, target.multiplicity
            w = slice(weight, weight + u * v)
            if product.part is Part.MAP:
                _block(out, target).add_(_block(left, source) @ right[w].view(u, v), alpha=factor)
            elif product.part is Part.TRANSPOSE:
                _block(out, source).add_(_block(left, target) @ right[w].view(u, v).mT, alpha=factor)
            else:
                x, g = _block(left, source).flatten(0, 1), _block(right, target).flatten(0, 1)
                out[w].view(u, v).add_(x.mT @ g, alpha=factor)
    return list(outputs.values())


def _block(rows: Tensor, block) -> Tensor:
    """(n, dim, multiplicity), component-major; a view."""
    length = block.dim * block.multiplicity
    return rows[:, block.offset : block.offset + length].unflatten(1, (block.dim, block.multiplicity))
