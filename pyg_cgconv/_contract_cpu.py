"""A contraction on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from cuda_kernels import cpu_launch
from cuda_kernels.polynomial import Contraction, kind
from cuda_kernels.problem import Problem
from cuda_kernels.schedule import owned_passes

from ._memory import POOL


def contract(problem: Problem, contraction: Contraction, inputs, lists, sources: int) -> list[Tensor]:
    """The contraction's outputs, from tensors in the order of its inputs; no gradients are recorded.

    Args:
        lists: by target and by source, as in `SortedEdges`.
    """
    starts, _, edges, *_ = lists[0]
    rows = {"g": starts.shape[0] - 1, "x": sources, "y": edges.shape[0], "w": edges.shape[0]}
    threads = torch.get_num_threads()
    values = {
        name: _component_major(problem, kind(name), value.contiguous(), threads)
        for name, value in zip(contraction.inputs, inputs, strict=True)
    }
    outputs = {
        name: POOL.empty((rows[kind(name)], problem.row(kind(name)).length), inputs[0].dtype)
        for name in contraction.outputs
    }
    passes = owned_passes(contraction)
    operands = []
    for owner, part in passes:
        starts, _, edges, others, _ = lists[owner == "x"]
        operands.append(
            (
                _addresses(values[name] for name in part.inputs),
                _addresses(outputs[name] for name in part.outputs),
                _addresses((starts, edges, others)),
                rows[owner],
            )
        )
    cpu_launch.launch(problem, passes, operands, rows["y"], threads)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)  # numba's OpenMP pool sets that of the library which both may have loaded
    return list(outputs.values())


def _component_major(problem: Problem, of: str, value: Tensor, threads: int) -> Tensor:
    """Rows of x and g in the order in which the kernels read them."""
    if of in "yw" or problem.row(of) == problem.component_major().row(of):
        return value
    result = POOL.empty(value.shape, value.dtype)
    cpu_launch.to_component_major(problem, of, value.data_ptr(), result.data_ptr(), value.shape[0], threads)
    return result


def _addresses(tensors) -> tuple[int, ...]:
    return tuple(tensor.data_ptr() for tensor in tensors)
