"""The project's own launching code on the PTX machine: what a GPU would compute, without one.

All that tests of the machine know of the project is here. Kernels are generated as for a GPU, but not assembled;
launches go to the machine instead of the driver. Memory that the project asks for without zeros begins with NaN.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from cuda_kernels import linear
from cuda_kernels.cuda import compile as assembler
from cuda_kernels.cuda import driver, fold, kernel, launch
from cuda_kernels.cuda import linear as linear_kernels
from cuda_kernels.cuda.binary import Binary
from pyg_cgconv.ops import EdgeList, _contract, _cuda, _edges
from pyg_cgconv.ops._edges import Graph
from tests import ptx_machine
from tests.ptx_memory import GlobalMemory
from tests.ptx_parser import parse

HOPPER = 9, 0

linear_assembly = cache(linear_kernels.linear_assembly)
"""Seconds for each kernel, which other tests read, too."""


@contextmanager
def emulated_gpu(
    deterministic: bool = False,
    row_edges: int | None = None,
    registers: int | None = None,
    capability: tuple[int, int] = HOPPER,
    misaligned: int = 0,
    walks: int | None = None,
) -> Iterator[list[tuple[int, int, int]]]:
    """Within it, contractions of tensors on a CPU run as on a GPU of this compute capability. It gives a list to which
    each launch adds its grid.

    Args:
        deterministic: two passes, without atomic additions.
        row_edges: edges that a block walks; nodes with more are cut into several rows.
        registers: a thread's; with fewer, passes are cut into more segments. None for all that there are.
        misaligned: bytes of the inputs' addresses beyond what the kernels' widest copies need.
        walks: rows of a kernel that share out the sites where there is no graph; None for as many as on a GPU.
    """

    grids: list[tuple[int, int, int]] = []

    def run(problem, contraction, inputs, graph, _) -> list[Tensor]:
        memory = GlobalMemory()

        def placed(tensors, offset: int = 0) -> list[_DeviceTensor]:
            return [_DeviceTensor(memory, _bits(tensor.detach()), offset, tensor.dtype) for tensor in tensors]

        def listed(edges: EdgeList | None) -> EdgeList | None:
            return None if edges is None else EdgeList(*placed(edges))

        if graph is not None:
            graph = Graph(listed(graph.by_target), listed(graph.by_source), graph.sources)
        with _launches(memory, grids, capability, registers):
            plan = _cuda.plan_here(problem, contraction, deterministic, 0)
            outputs = plan(placed(inputs, misaligned), graph)
        return [torch.from_numpy(output.array.copy()).view(output.dtype) for output in outputs]

    with (
        patch.object(_contract, "run", run),
        patch.object(_contract, "walks_sources", lambda operand, _: deterministic),
        patch.object(_edges, "_row_edges", lambda edges: row_edges),
        patch.object(launch, "WALKS", walks or launch.WALKS),
    ):
        yield grids


def folded(
    rows: np.ndarray, partials: np.ndarray, continuing: np.ndarray, together: int = 1, window: int = 1
) -> np.ndarray:
    """The rows, to which partial rows are added as `Walk` does after its other kernels."""
    memory = GlobalMemory()
    (rows_at, rows), (partials_at, _), (continuing_at, _) = map(memory.place, (rows, partials, continuing))
    text = _code(_fold_binary(rows.dtype.name, HOPPER))
    sizes = len(continuing), *rows.shape
    ptx_machine.run(
        text, (1, 2, 1), (32, 16, 1), 0, (rows_at, partials_at, continuing_at, *sizes, together, window), memory
    )
    return rows


def _bits(tensor: Tensor) -> np.ndarray:
    """A tensor as NumPy knows it, which has no bfloat16."""
    return (tensor.view(torch.int16) if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy()


class _DeviceTensor:
    """What the launching code uses of a tensor on a GPU. Its memory is free when nobody refers to it any more."""

    def __init__(self, memory: GlobalMemory, values: np.ndarray, offset: int = 0, dtype: torch.dtype | None = None):
        self._memory, self.shape, self.dtype = memory, values.shape, dtype or torch.from_numpy(values).dtype
        self._address, self.array = memory.place(values, offset)

    def __del__(self):
        self._memory.free(self._address, self.array.nbytes)

    def data_ptr(self) -> int:
        return self._address

    def is_contiguous(self) -> bool:
        return True

    def clone(self) -> _DeviceTensor:
        return _DeviceTensor(self._memory, self.array, dtype=self.dtype)

    def to(self, dtype: torch.dtype) -> _DeviceTensor:
        values = torch.from_numpy(self.array.copy()).view(self.dtype).to(dtype)
        return _DeviceTensor(self._memory, _bits(values), dtype=dtype)

    def new_empty(self, shape, dtype: torch.dtype | None = None) -> _DeviceTensor:
        dtype = dtype or self.dtype
        return _DeviceTensor(self._memory, _bits(torch.full(shape, torch.nan, dtype=dtype)), dtype=dtype)

    def __add__(self, other: _DeviceTensor) -> _DeviceTensor:
        return _DeviceTensor(self._memory, self.array + other.array)

    def sum(self, dim: int) -> _DeviceTensor:
        return _DeviceTensor(self._memory, self.array.sum(dim))

    def new_zeros(self, shape, dtype: torch.dtype | None = None) -> _DeviceTensor:
        dtype = dtype or self.dtype
        return _DeviceTensor(self._memory, _bits(torch.zeros(shape, dtype=dtype)), dtype=dtype)


class _Kernel:
    """In place of a kernel that the driver has loaded."""

    def __init__(self, memory: GlobalMemory, grids: list, binary: Binary):
        self._memory, self._grids, self.binary = memory, grids, binary

    def launch(self, grid: tuple[int, int], packed: int, stream: int) -> None:
        text, grid = _code(self.binary), (*grid, 1)
        kinds = [kind for _, kind in parse(text).parameters]
        pointers = (ctypes.c_uint64 * len(kinds)).from_address(packed)
        sizes = {"u32": ctypes.c_uint32, "u64": ctypes.c_uint64}
        values = tuple(sizes[kind].from_address(at).value for kind, at in zip(kinds, pointers, strict=True))
        self._grids.append(grid)
        ptx_machine.run(text, grid, self.binary.block, self.binary.shared_bytes, values, self._memory)


@contextmanager
def _launches(
    memory: GlobalMemory, grids: list, capability: tuple[int, int] = HOPPER, registers: int | None = None
) -> Iterator[None]:
    """Launches of the project run on the machine, with this memory."""

    def part(problem, which: linear.Part, device: int):
        table = linear.table(problem, which)
        tables = [_DeviceTensor(memory, array) for array in table]
        return launch.LinearPart(which, table, problem.dtype, device), tables

    replaced = {
        "Kernel": lambda binary: _Kernel(memory, grids, binary),
        "compute_capability": lambda device: capability,
        "binaries": lambda *what: _binaries(*what, registers or kernel.REGISTERS),
        "_fold_binary": _fold_binary,
        "_linear_binary": _linear_binary,
    }
    with ExitStack() as stack:
        for name, value in replaced.items():
            stack.enter_context(patch.object(launch, name, value))
        stack.enter_context(patch.object(driver._thread, "buffers", {}, create=True))
        stack.enter_context(patch.object(_cuda, "current_stream", lambda device: 0))
        stack.enter_context(patch.object(_cuda, "current_device", lambda: 0))
        stack.enter_context(patch.object(_cuda, "ensure_context", lambda device: None))
        stack.enter_context(patch.object(_cuda, "_part", part))
        yield


class _NoLinker:
    """In place of the assembler: machine code is the PTX."""

    def __init__(self, source, options):
        self.code = source.code

    def link(self, target: str) -> _NoLinker:
        return self


@contextmanager
def _unassembled() -> Iterator[None]:
    with patch.object(assembler, "Linker", _NoLinker), patch.object(Binary, "stack_bytes", 0):
        yield


def _code(binary: Binary) -> str:
    return binary.cubin.decode()


@cache
def _binaries(problem, walk, capability, registers: int) -> list[Binary]:
    with _unassembled(), patch.object(kernel, "REGISTERS", registers):
        return launch.compiled_pass(problem, walk, capability)


@cache
def _fold_binary(dtype: str, capability) -> Binary:
    with _unassembled():
        return fold.compile_fold(dtype, capability)


@cache
def _linear_binary(part: linear.Part, dtype: str, capability) -> Binary:
    with _unassembled(), patch.object(linear_kernels, "linear_assembly", linear_assembly):
        return linear_kernels.compile_linear(part, dtype, capability)
