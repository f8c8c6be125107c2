"""Running the CPU kernels: compiled once a process and contraction, kept on disk, called with addresses."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache

import numba

from ..contraction import Contraction
from ..passes import Pass
from ..problem import Channels, Index, Problem
from .kernel import compile_kernel, compile_transposition

# numba's simplest thread pool aborts the process when two threads enter it at once; a kernel uses every core anyway.
_one_at_a_time = threading.Lock()


WORK_A_THREAD = 500_000
"""Multiply-adds worth a thread of their own: an estimate (50 microseconds at 10 per nanosecond), not a measurement."""


PIECE_BYTES = 1 << 18
"""Weights that a thread reads for one pass before it reads them again for the other: they stay in the second-level
cache. The double backward of 64 molecules takes a fifth less time, with a megabyte about as much (two cores of an AMD
EPYC)."""

PIECES_A_THREAD = 4  # so that threads end at about the same time


@cache
def kernel(problem: Problem, passes: tuple[Pass, ...]):
    return compile_kernel(problem, passes)


def launch(problem: Problem, passes: tuple[Pass, ...], operands: Sequence[tuple], edges: int, threads: int) -> None:
    """Run one or two passes (see `kernel.compile_kernel`) on up to `threads` threads.

    Args:
        operands: of each pass addresses of inputs, outputs and lists, and the number of rows.
    """
    run = kernel(problem, passes)
    worthwhile = edges * sum(_work_an_edge(problem, walk.contraction) for walk in passes) // WORK_A_THREAD
    with _one_at_a_time:
        numba.set_num_threads(max(1, min(threads, worthwhile, numba.config.NUMBA_NUM_THREADS)))
        run(*operands[0], *operands[-1], _pieces(problem, passes, operands, edges, threads))


def _pieces(problem: Problem, passes, operands, edges: int, threads: int) -> int:
    """How many pieces the rows are cut into; a single pass has nothing to read again."""
    rows = max(rows for *_, rows in operands)
    if len(passes) == 1:
        return rows
    read = (problem.operand(name) for name in passes[0].contraction.inputs)
    weights = sum(o.row.length for o in read if o.index is Index.EDGE and o.channels is Channels.EACH)
    weights *= problem.item_bytes
    return min(rows, max(PIECES_A_THREAD * threads, edges * weights // PIECE_BYTES))


@cache
def _transposition(problem: Problem, name: str):
    return compile_transposition(problem, name)


def to_component_major(problem: Problem, name: str, source: int, target: int, rows: int, threads: int) -> None:
    """Copy an operand's rows to the order in which the kernels read them; source and target are addresses."""
    run = _transposition(problem, name)
    worthwhile = rows * problem.row(name).length // WORK_A_THREAD
    with _one_at_a_time:
        numba.set_num_threads(max(1, min(threads, worthwhile, numba.config.NUMBA_NUM_THREADS)))
        run(source, target, rows)


@cache
def _work_an_edge(problem: Problem, contraction: Contraction) -> int:
    """Multiply-adds, roughly: each coefficient once a channel for each term and output."""
    terms = len(contraction.terms) * len(contraction.outputs)
    return terms * sum(problem.multiplicity(path) * len(path.coefficients) for path in problem.paths)
