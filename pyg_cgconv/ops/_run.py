"""A contraction's kernels, run: no gradients, no transforms, tensors with memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module

import torch
from torch import Tensor

from cuda_kernels.contraction import Contraction
from cuda_kernels.problem import Problem

from .._torch import with_memory
from ._edges import Graph
from ._plan import Plan

DTYPES = {torch.float32: "float32", torch.float64: "float64"}


def dtype_of(operands: Sequence[Tensor]) -> str:
    """The dtype that a contraction of these operands is computed in; some may be stored in a lower one."""
    return next(DTYPES[operand.dtype] for operand in operands if operand.dtype in DTYPES)


def run(
    problem: Problem, contraction: Contraction, operands: Sequence[Tensor], graph: Graph | None, deterministic: bool
) -> list[Tensor]:
    """The outputs of a contraction, from tensors in the order of its inputs; no gradients are recorded."""
    values = [with_memory(operand) for operand in operands]
    return _plan(problem, contraction, deterministic, values[0].get_device())(values, graph)


@cache
@torch.compiler.disable  # does not look into the compilation of kernels, which it would break
def _plan(problem: Problem, contraction: Contraction, deterministic: bool, device: int) -> Plan:
    """All that does not change from call to call. A small molecule's kernel takes less time than the call before it.

    On a GPU nobody pays for importing numba, and on a CPU nobody needs the CUDA driver's bindings.
    """
    backend = import_module("._cpu" if device < 0 else "._cuda", __package__)
    return backend.plan(problem, contraction, deterministic, device)


def is_deterministic(asked: bool) -> bool:
    """Whether sums have one order: because a layer asks for it, or the program by torch's switch (of which
    ``warn_only`` speaks of operations that have none)."""
    return asked or torch.are_deterministic_algorithms_enabled()


def walks_sources(operand: Tensor, deterministic: bool) -> bool:
    """Whether derivatives walk the edges by source, too, instead of adding to source nodes atomically."""
    return deterministic or not operand.is_cuda
