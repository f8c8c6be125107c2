"""The CPU kernels: a thread owns a node, walks its edges and adds to the node's row; channels fill vector registers.

The same polynomial and the same arithmetic as on a GPU. Features with channels are component-major (ir_mul) here, so
that a vector register is filled by one load; the caller brings other layouts to it, once a node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numba
import numpy as np
from numba import types

from ..passes import Pass
from ..problem import Problem, Row
from .compile import compiled
from .parts import Parts

EDGES_AHEAD = 4
"""How many edges before its turn a row of weights is fetched. With 2 to 6, a forward from memory takes a quarter less
time (nequip-aspirin of 64 molecules on two cores of an AMD EPYC: 4.1 to 2.7 ms)."""


def compile_kernel(problem: Problem, passes: Sequence[Pass], parallel: bool = True) -> Callable[..., None]:
    """The compiled kernel of one or two passes, for numba's threads or for the one that calls it.

    Returns:
        kernel(*operands, pieces): for each pass, and twice for a single one, its inputs, outputs, lists and number of
        rows. The first three are tuples of addresses (int), lists that of the int32 arrays first, edges and others. Row
        r has the list positions first[r] to first[r + 1], with edge number edges[p] and, at the other end, node
        others[p]. Without a graph lists are not read: each row is a site of its own. Writes the rows of its outputs,
        which begin at multiples of 64 bytes; the GIL is released.

    A thread walks a piece of the first pass's rows, then one of the second's. Where nodes have neighbours of about
    their own number, as in a batch of molecules, the two have edges in common, whose weights are then still in cache.
    """
    make_walk = _walk_edges if problem.has_graph else _walk_rows
    walks = [make_walk(Parts(problem, walk)) for walk in passes]
    walk, walk_again = walks if len(walks) == 2 else (*walks, _nothing)

    @numba.njit(parallel=parallel, nogil=True)
    def kernel(inputs, outputs, lists, rows, inputs_again, outputs_again, lists_again, rows_again, pieces):
        for piece in numba.prange(pieces):
            walk(inputs, outputs, lists, rows, piece, pieces)
            walk_again(inputs_again, outputs_again, lists_again, rows_again, piece, pieces)

    address = types.uint64
    counts = [(len(p.contraction.inputs), len(p.contraction.outputs), 3) for p in (passes[0], passes[-1])]
    operands = [[*(types.UniTuple(address, n) for n in count), types.int64] for count in counts]
    specs = [(walk.by, walk.contraction.spec) for walk in passes]
    return compiled(kernel, types.void(*operands[0], *operands[1], types.int64), (problem.key, specs, parallel))


def _walk_edges(parts: Parts):
    """walk(inputs, outputs, lists, rows, piece, pieces): one piece of the rows of a pass over a graph."""
    read_index, contract_edge, write_rows = parts.read_index(), parts.contract_edge(), parts.write_rows()
    finish_stores = parts.finish_stores()
    number, owned_numbers, edge_numbers = np.dtype(parts.problem.dtype), parts.owned_numbers, parts.edge_numbers

    @numba.njit(inline="always")  # compiled once, as part of the kernel
    def walk(inputs, outputs, lists, rows, piece, pieces):
        first, edges, others = lists
        last = read_index(first, rows) - 1
        for row in range(rows * piece // pieces, rows * (piece + 1) // pieces):
            sums = np.zeros(owned_numbers + edge_numbers, number)
            edge_sums = sums[owned_numbers:]
            for position in range(read_index(first, row), read_index(first, row + 1)):
                edge, other = read_index(edges, position), read_index(others, position)
                later_edge = read_index(edges, min(position + EDGES_AHEAD, last))
                contract_edge(inputs, outputs, sums, edge_sums, row, edge, other, later_edge)
            write_rows(outputs, sums, row)
        finish_stores()

    return walk


def _walk_rows(parts: Parts):
    """walk(inputs, outputs, lists, rows, piece, pieces): one piece of the sites of a pass without a graph."""
    contract_edge, finish_stores = parts.contract_edge(), parts.finish_stores()
    number, edge_numbers = np.dtype(parts.problem.dtype), parts.edge_numbers

    @numba.njit(inline="always")
    def walk(inputs, outputs, lists, rows, piece, pieces):
        edge_sums = np.empty(edge_numbers, number)
        for row in range(rows * piece // pieces, rows * (piece + 1) // pieces):
            later = min(row + EDGES_AHEAD, rows - 1)
            contract_edge(inputs, outputs, edge_sums, edge_sums, row, row, row, later)
        finish_stores()

    return walk


@numba.njit(inline="always")
def _nothing(inputs, outputs, lists, rows, piece, pieces):
    """In place of a second pass."""


def compile_transposition(
    dtype: str, compact: Row, given: Row, parallel: bool = True
) -> Callable[[int, int, int], None]:
    """kernel(source, target, rows): copies rows from the given order to component-major, which is `compact`; both are
    addresses."""
    write_back = Parts.write_back(dtype, compact, given)

    @numba.njit(parallel=parallel, nogil=True)
    def kernel(source, target, rows):
        for row in numba.prange(rows):
            write_back(source, target, row)

    signature = types.void(types.uint64, types.uint64, types.int64)
    return compiled(kernel, signature, ("transposition", dtype, compact, given, parallel))
