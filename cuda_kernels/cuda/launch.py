"""Running the CUDA kernels: compiled once an architecture, kept on disk, loaded once a process, launched by handle.

Kernels found on disk are run without importing numba.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

from .. import cache as disk
from .. import elf
from ..gate import Gains, Order
from ..linear import Part, Table, tiles_of
from ..passes import Pass
from ..problem import Problem
from .binary import FOLD_BLOCKS, FOLD_WARPS, GATE_THREADS, MINIMUM_CAPABILITY, Binary
from .driver import INSTALL, Kernel, compute_capability, pack
from .staging import LANES

WALKS = 2048
"""Rows of a kernel that share out the sites without a graph: enough blocks for every multiprocessor (an estimate)."""

_OF_THE_RUN = {"NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS", "NUMBA_THREADING_LAYER", "NUMBA_THREADING_LAYER_PRIORITY"}
"""Settings of numba that machine code does not depend on, and that differ between runs of one program."""

_Found = TypeVar("_Found")
_Kernels = TypeVar("_Kernels")


@cache
def binaries(problem: Problem, walk: Pass, capability: tuple[int, int], anew: bool = False) -> list[Binary]:
    """The kernels of one pass, from disk or else compiled now.

    Args:
        anew: compiled whatever is on disk, which they replace.

    Raises:
        ValueError: the architecture is older than the kernels' instructions.
        ImportError: there is nothing on disk, and no compiler.
    """

    def compiled() -> list[Binary]:
        return compiled_pass(problem, walk, capability)

    return _stored(("walk", problem.key, walk.contraction.spec, walk.by), capability, compiled, anew)


def compiled_pass(problem: Problem, walk: Pass, capability: tuple[int, int]) -> list[Binary]:
    """The kernels of one pass, by the module for such problems; needs no GPU."""
    if problem.is_polynomial:
        from .powers import compile_pass
    elif problem.has_maps:
        from .maps import compile_pass
    else:
        from .kernel import compile_pass
    return compile_pass(problem, walk, capability)


@cache
def _fold_binary(dtype: str, capability: tuple[int, int], anew: bool = False) -> Binary:
    """The kernel that adds up the rows of nodes with many edges."""

    def compiled() -> list[Binary]:
        from .fold import compile_fold

        return [compile_fold(dtype, capability)]

    return _stored(("fold", dtype), capability, compiled, anew)[0]


@cache
def _linear_binary(part: Part, dtype: str, capability: tuple[int, int], anew: bool = False) -> Binary:
    """A kernel of linear maps of features."""

    def compiled() -> list[Binary]:
        from .linear import compile_linear

        return [compile_linear(part, dtype, capability)]

    return _stored(("linear", part, dtype), capability, compiled, anew)[0]


@cache
def _gate_binary(order: Order, dtype: str, gains: Gains, capability: tuple[int, int], anew: bool = False) -> Binary:
    """A kernel of gated nonlinearities."""

    def compiled() -> list[Binary]:
        from .gate import compile_gate

        return [compile_gate(order, dtype, gains, capability)]

    return _stored(("gate", order, dtype, gains), capability, compiled, anew)[0]


def _stored(name: tuple, capability: tuple[int, int], compiled: Callable[[], list[Binary]], anew: bool) -> list[Binary]:
    """What is on disk under this name, or else what `compiled` returns, which is put there."""
    if capability < MINIMUM_CAPABILITY:
        found, needed = (".".join(map(str, version)) for version in (capability, MINIMUM_CAPABILITY))
        raise ValueError(
            f"backend: this GPU has compute capability {found}, the CUDA kernels need {needed} (copies to shared "
            "memory that do not wait); use backend='reference', or a CPU"
        )
    key = disk.key("cuda", name, capability, _settings())
    if not anew and (stored := _on_disk(key)):
        return stored
    # Only now: numba and the compiler take a second to import, and kernels on disk need neither.
    try:
        result = compiled()
    except ImportError as error:
        raise ImportError(f"backend: the CUDA kernels are compiled by numba-cuda ({error}); {INSTALL}") from error
    disk.store(key, pickle.dumps((key, result)))
    return result


def _on_disk(key: str) -> list[Binary] | None:
    """What is on disk under this key, if it is what `_stored` has put there."""
    stored = disk.load(key)
    try:
        name, result = pickle.loads(stored or b"")
        return result if name == key and result and all(elf.is_whole(binary.cubin) for binary in result) else None
    except Exception:  # bytes that are no kernels fail anywhere; they are replaced
        return None


def _settings() -> list[tuple[str, str]]:
    """The compiler's settings, without importing it: variables of the environment, and its configuration file."""
    settings = sorted(item for item in os.environ.items() if item[0].startswith("NUMBA_"))
    file = Path(".numba_config.yaml")
    written = [(file.name, file.read_text())] if file.is_file() else []
    return written + [(name, value) for name, value in settings if name not in _OF_THE_RUN]


def _loaded(find: Callable[..., _Found], load: Callable[[_Found], _Kernels], *what) -> _Kernels:
    """What `find` finds, loaded on the current device. Compiled anew if it does not load: then it is from disk, and
    something else was there under its name."""
    try:
        return load(find(*what))
    except RuntimeError:
        return load(find(*what, anew=True))


def _load_all(found: list[Binary]) -> list[Kernel]:
    return [Kernel(binary) for binary in found]


class Walk:
    """The kernels of one pass on one device, ready to launch."""

    def __init__(self, problem: Problem, walk: Pass, device: int):
        capability, outputs = compute_capability(device), walk.contraction.outputs
        self._graph = problem.has_graph
        self._owned = [n for n, name in enumerate(outputs) if problem.operand(name).index is walk.by and self._graph]
        self._lengths = [problem.row(name).length for name in outputs]
        self._kernels = _loaded(binaries, _load_all, problem, walk, capability)
        if self._owned:
            self._fold = _loaded(_fold_binary, Kernel, problem.dtype, capability)

    def over_graph(
        self,
        inputs: Sequence[int],
        outputs: Sequence[int],
        partials: Sequence[int],
        lists: Sequence[int],
        rows: int,
        continuing: int,
        stream: int,
    ) -> None:
        """Start the kernels on a stream, one after the other (see `kernel.kernel_of`).

        Args:
            inputs, outputs: addresses of the contraction's operands.
            partials: for each owned output the address of `continuing` rows, if there are any.
            lists: addresses of starts, owners, edges, others and continuing.
            rows, continuing: all rows of the lists, and how many of them are not their node's first.
        """
        if rows == 0:
            return
        *listed, continuing_nodes = lists
        nodes = rows - continuing
        partial_rows = dict(zip(self._owned, partials, strict=False))
        every = [partial_rows.get(n, 0) for n in range(len(outputs))]
        self._launch((*inputs, *outputs, *every, *listed, rows, nodes), rows, stream)
        for n, partial in partial_rows.items():
            blocks = min(FOLD_BLOCKS, -(-self._lengths[n] // (LANES * FOLD_WARPS)))
            window = min(LANES, -(-continuing // (FOLD_BLOCKS // blocks)))
            grid = blocks, min(FOLD_BLOCKS // blocks, -(-continuing // window))
            together = self._kernels[0].binary.together
            parameters = outputs[n], partial, continuing_nodes, continuing, nodes, self._lengths[n], together, window
            self._fold.launch(grid, pack(parameters), stream)

    def over_rows(self, inputs: Sequence[int], outputs: Sequence[int], sites: int, stream: int) -> None:
        """Start the kernels of a problem without a graph for so many rows of its operands."""
        if sites == 0:
            return
        each = -(-sites // WALKS)
        rows = -(-sites // each)
        self._launch((*inputs, *outputs, *[0] * len(outputs), each, 0, 0, 0, rows, sites), rows, stream)

    def _launch(self, parameters: Sequence[int], rows: int, stream: int) -> None:
        packed = pack(parameters)
        for kernel in self._kernels:
            binary = kernel.binary
            kernel.launch((-(-rows // (binary.block[2] * binary.together)) * binary.channel_parts, 1), packed, stream)


class LinearPart:
    """One part of a linear map on one device, ready to launch."""

    def __init__(self, part: Part, table: Table, dtype: str, device: int):
        self._kernel = _loaded(_linear_binary, Kernel, part, dtype, compute_capability(device))
        self._tiles, self._part = len(table.tiles), part

    def __call__(
        self, operands: Sequence[int], tables: Sequence[int], nodes: int, length: int, other: int, stream: int
    ) -> None:
        """Start the kernel on a stream.

        Args:
            operands: addresses of what is read, twice, and of what is written.
            tables: addresses of a `Table`'s arrays on the device.
            nodes: rows of the features.
            length, other: numbers in a row of the first operand, and of the other operand that has a row for each node.
        """
        grid = (self._tiles, 1) if self._part is Part.WEIGHTS else (tiles_of(nodes), self._tiles)
        if all(grid):
            self._kernel.launch(grid, pack((*operands, *tables, nodes, length, other)), stream)


class GateKernel:
    """One order of a gated nonlinearity on one device, ready to launch."""

    def __init__(self, order: Order, dtype: str, gains: Gains, device: int):
        self._kernel = _loaded(_gate_binary, Kernel, order, dtype, gains, compute_capability(device))

    def __call__(
        self, operands: Sequence[int], table: int, rows: int, units: int, length_in: int, length_out: int, stream: int
    ) -> None:
        """Start the kernel on a stream (see `gate.kernel_of`).

        Args:
            operands: addresses of the rows that are read and written.
            table: the address of the units' table on the device.
            rows, units: their product is less than 2^32.
            length_in, length_out: numbers in a row.
        """
        if count := rows * units:
            parameters = *operands, table, count, units, length_in, length_out
            self._kernel.launch((-(-count // GATE_THREADS), 1), pack(parameters), stream)
