"""Kernels compiled before they are needed: for this CPU, or for GPUs of any architecture, which need not be there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from cuda_kernels import linear
from cuda_kernels.contraction import Contraction
from cuda_kernels.gate import Gains, Order
from cuda_kernels.passes import owned_passes, single_pass
from cuda_kernels.problem import Problem

from . import _run
from ._activations import SILU

Asked = tuple[Problem, Contraction, bool]
"""A contraction of a problem, and whether its sums have one order."""


@contextmanager
def recorded() -> Iterator[set[Asked]]:
    """Within it, the contractions that are computed are added to the set."""
    plan, asked = _run._plan, set[Asked]()

    def recording(problem: Problem, contraction: Contraction, deterministic: bool, device: int) -> _run.Plan:
        asked.add((problem, contraction, deterministic))
        return plan(problem, contraction, deterministic, device)

    _run._plan = recording  # type: ignore[assignment]
    try:
        yield asked
    finally:
        _run._plan = plan


@contextmanager
def work_for_threads(a_thread: int) -> Iterator[None]:
    """Within it, so few multiply-adds are worth a thread of a CPU: 1 has small structures computed by the kernels of
    large ones."""
    from cuda_kernels.cpu import launch  # only now: it imports numba

    usual = launch.WORK_A_THREAD
    launch.WORK_A_THREAD = a_thread
    try:
        yield
    finally:
        launch.WORK_A_THREAD = usual


def compile_gates(gains: Gains, dtype: str, capability: tuple[int, int], training: bool) -> None:
    """The kernels of gates, and of silu in a training, are put on disk, unless they are there. Only CUDA graphs run
    them. It needs no GPU."""
    from cuda_kernels.cuda import launch

    asked = [(Order.FORWARD, gains), (Order.BACKWARD, gains)]
    if training:
        asked += [(Order.DOUBLE_BACKWARD, gains), (Order.DOUBLE_BACKWARD, SILU.gains)]
    for order, of in asked:
        launch._gate_binary(order, dtype, of, capability)


def compile_for_gpu(asked: Iterable[Asked], capability: tuple[int, int]) -> None:
    """What a GPU of this compute capability will run is put on disk, unless it is there. It needs no GPU.

    Raises:
        ValueError: the architecture is older than the kernels' instructions.
        ImportError: there is no compiler.
    """
    from cuda_kernels.cuda import launch
    from cuda_kernels.cuda.staging import can_be_read

    for problem, contraction, deterministic in asked:
        if problem.is_linear_map:
            for product in linear.products(contraction):
                launch._linear_binary(product.part, problem.dtype, capability)
            continue
        known = problem.stored(tuple((o.name, None) for o in problem.operands if not can_be_read(problem, o.name)))
        for walk in (owned_passes if deterministic else single_pass)(known, contraction):
            launch.binaries(known, walk, capability)
            if known.has_graph and any(known.operand(name).index is walk.by for name in walk.contraction.outputs):
                launch._fold_binary(known.dtype, capability)
