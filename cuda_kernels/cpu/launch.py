"""Running the CPU kernels: compiled once a process and contraction, kept on disk, called with addresses."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from functools import cache, partial

import numba

from ..contraction import Contraction
from ..passes import Pass
from ..problem import WEIGHT, Channels, Index, Problem, Row
from .kernel import compile_kernel, compile_transposition
from .powers import compile_powers

# numba's simplest thread pool aborts the process when two threads enter it at once; a kernel uses every core anyway.
_one_at_a_time = threading.Lock()
_is_forked = False  # from a process that had the kernels


WORK_A_THREAD = 500_000
"""Multiply-adds worth a thread of their own: an estimate (50 microseconds at 10 per nanosecond), not a measurement."""


PIECE_BYTES = 1 << 18
"""Weights that a thread reads for one pass before it reads them again for the other: they stay in the second-level
cache. The double backward of 64 molecules takes a fifth less time, with a megabyte about as much (two cores of an AMD
EPYC)."""

PIECES_A_THREAD = 4  # so that threads end at about the same time


class Walks:
    """The kernel of one or two passes, ready to run."""

    def __init__(self, problem: Problem, passes: tuple[Pass, ...]):
        self._run = _Kernel(partial(compile_kernel, problem, passes))
        self._is_single = len(passes) == 1
        self._work_an_edge = sum(_work_an_edge(problem, walk.contraction) for walk in passes)
        read = (problem.operand(name) for name in passes[0].contraction.inputs)
        weights = sum(o.row.length for o in read if o.index is Index.EDGE and o.channels is not Channels.NONE)
        self._weight_bytes_an_edge = weights * problem.item_bytes

    def __call__(self, operands: Sequence[tuple], edges: int, threads: int) -> None:
        """Run it on up to `threads` threads.

        Args:
            operands: of each pass addresses of inputs, outputs and lists, and the number of rows.
        """
        arguments = *operands[0], *operands[-1], self._pieces(operands, edges, threads)
        self._run(arguments, edges * self._work_an_edge, threads)

    def _pieces(self, operands: Sequence[tuple], edges: int, threads: int) -> int:
        """How many pieces the rows are cut into; a single pass has nothing to read again."""
        rows = max(rows for *_, rows in operands)
        if self._is_single:
            return rows
        return min(rows, max(PIECES_A_THREAD * threads, edges * self._weight_bytes_an_edge // PIECE_BYTES))


class PowersWalks:
    """The kernels of a polynomial's passes, ready to run."""

    def __init__(self, problem: Problem, passes: tuple[Pass, ...]):
        self._kernels = [
            (_Kernel(partial(compile_powers, problem, walk)), _work_an_edge(problem, walk.contraction))
            for walk in passes
        ]

    def __call__(self, operands: Sequence[tuple], sites: int, threads: int) -> None:
        """Run them, with arguments like those of `Walks`."""
        for (run, work), arguments in zip(self._kernels, operands, strict=True):
            run(arguments, sites * work, threads)


class Transposition:
    """Copies an operand's rows to the order in which the kernels read them."""

    def __init__(self, problem: Problem, name: str):
        compact, given = problem.component_major().row(name), problem.row(name)
        self._run, self._length = _transposition(problem.dtype, compact, given), given.length

    def __call__(self, source: int, target: int, rows: int, threads: int) -> None:
        """Copy rows; source and target are addresses."""
        self._run((source, target, rows), rows * self._length, threads)


class _Kernel:
    """A kernel in two versions, each compiled at its first call: one for numba's threads, and one for the thread that
    calls it, which is faster where there is little to do.

    Threads do not live on in a forked process, and numba ends one that asks for them: it computes alone.
    """

    def __init__(self, compile: Callable[..., Callable]):
        self._compile = compile
        self._kernels: dict[bool, Callable] = {}

    def __call__(self, arguments: tuple, work: int, threads: int) -> None:
        threads = min(threads, work // WORK_A_THREAD, numba.config.NUMBA_NUM_THREADS)
        if threads < 2 or _is_forked:
            self._kernel(False)(*arguments)
            return
        kernel = self._kernel(True)
        with _one_at_a_time:
            numba.set_num_threads(threads)
            kernel(*arguments)

    def _kernel(self, parallel: bool) -> Callable:
        kernel = self._kernels.get(parallel)
        if kernel is None:
            kernel = self._kernels[parallel] = self._compile(parallel=parallel)
        return kernel


@cache  # operands and problems have rows in common
def _transposition(dtype: str, compact: Row, given: Row) -> _Kernel:
    return _Kernel(partial(compile_transposition, dtype, compact, given))


def _begin_again() -> None:
    """In a forked process: a thread that holds the lock does not live on in it, to give it back. Whoever started
    OpenMP's threads, numba or torch, they are not there."""
    global _one_at_a_time, _is_forked
    _one_at_a_time, _is_forked = threading.Lock(), True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_again)


def _work_an_edge(problem: Problem, contraction: Contraction) -> int:
    """Multiply-adds, roughly: each coefficient once a channel, or pair of channels, for each term and output."""
    terms = len(contraction.terms) * len(contraction.outputs)
    if problem.is_polynomial:
        return terms * sum(problem.multiplicity(path) * len(path.monomials) for path in problem.paths)
    if problem.has_maps:
        weights = (problem.row(problem.form[WEIGHT]).blocks[path.block(WEIGHT)] for path in problem.paths)
        return terms * sum(block.dim * block.multiplicity for block in weights)
    return terms * sum(problem.multiplicity(path) * len(path.coefficients) for path in problem.paths)
