"""Running the CPU kernels: compiled once a process and contraction, kept on disk, called with addresses."""

from __future__ import annotations

import threading
from functools import cache

import numba

from .cpu_kernel import compile_kernel
from .polynomial import Contraction
from .problem import Problem

# numba's simplest thread pool aborts the process when two threads enter it at once; a kernel uses every core anyway.
_one_at_a_time = threading.Lock()


@cache
def kernel(problem: Problem, contraction: Contraction, owner: str):
    return compile_kernel(problem, contraction, owner)


def launch(
    problem: Problem,
    contraction: Contraction,
    owner: str,
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
    lists: tuple[int, int, int],
    rows: int,
    threads: int,
) -> None:
    """Run one pass (see `cpu_kernel.compile_kernel`) on `threads` threads; all arguments but counts are addresses."""
    run = kernel(problem, contraction, owner)
    with _one_at_a_time:
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        run(inputs, outputs, *lists, rows)
