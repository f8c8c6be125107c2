"""Running the CPU kernels: compiled once a process and contraction, kept on disk, called with addresses."""

from __future__ import annotations

import threading
from functools import cache

import numba

from .cpu_kernel import compile_kernel, compile_transposition
from .polynomial import Contraction
from .problem import Problem

# numba's simplest thread pool aborts the process when two threads enter it at once; a kernel uses every core anyway.
_one_at_a_time = threading.Lock()


WORK_A_THREAD = 500_000
"""Multiply-adds worth a thread of their own: an estimate (50 microseconds at 10 per nanosecond), not a measurement."""


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
    edges: int,
    threads: int,
) -> None:
    """Run one pass (see `cpu_kernel.compile_kernel`) on up to `threads` threads; all arguments but counts are
    addresses."""
    run = kernel(problem, contraction, owner)
    worthwhile = edges * _work_an_edge(problem, contraction) // WORK_A_THREAD
    with _one_at_a_time:
        numba.set_num_threads(max(1, min(threads, worthwhile, numba.config.NUMBA_NUM_THREADS)))
        run(inputs, outputs, *lists, rows)


@cache
def _transposition(problem: Problem, kind: str):
    return compile_transposition(problem, kind)


def to_component_major(problem: Problem, kind: str, source: int, target: int, rows: int, threads: int) -> None:
    """Copy rows of a kind to the order in which the kernels read them; source and target are addresses."""
    run = _transposition(problem, kind)
    worthwhile = rows * problem.row(kind).length // WORK_A_THREAD
    with _one_at_a_time:
        numba.set_num_threads(max(1, min(threads, worthwhile, numba.config.NUMBA_NUM_THREADS)))
        run(source, target, rows)


@cache
def _work_an_edge(problem: Problem, contraction: Contraction) -> int:
    """Multiply-adds, roughly: each coefficient once a channel for each term and output."""
    terms = len(contraction.terms) * len(contraction.outputs)
    return terms * sum(problem.multiplicity(path) * len(path.coefficients) for path in problem.paths)
