"""The project's own launching code on the PTX machine: what a GPU would compute, without one.

All that tests of the machine know of the project is here. Kernels are generated as for a GPU, but not assembled;
launches go to the machine instead of the driver. Memory that the project asks for without zeros begins with NaN.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from cuda_kernels import cuda_compile, cuda_fold, cuda_kernel, cuda_launch, cuda_mixing
from cuda_kernels.binary import Binary
from cuda_kernels.mixing import WEIGHTS, Mixing
from pyg_cgconv import _contract_cuda, _edges, _ops
from tests import ptx_machine
from tests.ptx_memory import GlobalMemory
from tests.ptx_parser import parse

HOPPER = 9, 0


@contextmanager
def emulated_gpu(
    deterministic: bool = False,
    row_edges: int | None = None,
    registers: int | None = None,
    capability: tuple[int, int] = HOPPER,
    misaligned: int = 0,
) -> Iterator[list[tuple[int, int, int]]]:
    """Within it, convolutions of tensors on a CPU run as on a GPU of this compute capability. It gives a list to which
    each launch adds its grid.

    Args:
        deterministic: two passes, without atomic additions.
        row_edges: edges that a block walks; nodes with more are cut into several rows.
        registers: a thread's; with fewer, passes are cut into more segments. None for all that there are.
        misaligned: bytes of the inputs' addresses beyond what the kernels' widest copies need.
    """

    grids: list[tuple[int, int, int]] = []

    def contract(problem, contraction, inputs, lists, sources: int) -> list[Tensor]:
        memory = GlobalMemory()

        def placed(tensors, offset: int = 0) -> list[_DeviceTensor]:
            return [_DeviceTensor(memory, tensor.detach().numpy(), offset) for tensor in tensors]

        with _launches(memory, grids, capability, registers):
            plan = _contract_cuda._Plan(problem, contraction, deterministic, device=0)
            outputs = plan(placed(inputs, misaligned), [placed(listed) for listed in lists], sources)
        return [torch.from_numpy(output.array.copy()) for output in outputs]

    with (
        patch.object(_ops, "_device", lambda name: SimpleNamespace(contract=contract)),
        patch.object(_edges, "_row_edges", lambda edges: row_edges),
    ):
        yield grids


def mixed(mixing: Mixing, part: str, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """What this part of a linear map makes of its two operands, as `_mixing_cuda` runs it."""
    memory, table, nodes = GlobalMemory(), mixing.table(part), len(left)
    out = np.full(mixing.shape(part, nodes), np.nan, left.dtype)
    (*operands, result), tables = ([memory.place(a) for a in arrays] for arrays in ((left, right, out), table))
    other = (right if part == WEIGHTS else out).shape[1]
    with _launches(memory, []):
        launch = cuda_launch.MixingLaunch(part, table, left.dtype.name, 0)
        addresses, tables = ([address for address, _ in arrays] for arrays in ((*operands, result), tables))
        launch(addresses, tables, nodes, left.shape[1], other, 0)
    return result[1]


def folded(rows: np.ndarray, partials: np.ndarray, continuing: np.ndarray) -> np.ndarray:
    """The rows, to which partial rows are added as `Pass` does after its other kernels."""
    memory = GlobalMemory()
    (rows_at, rows), (partials_at, _), (continuing_at, _) = map(memory.place, (rows, partials, continuing))
    text = _code(_fold_binary(rows.dtype.name, HOPPER))
    sizes = len(continuing), *rows.shape
    ptx_machine.run(text, (3, 1, 1), (32, 16, 1), 0, (rows_at, partials_at, continuing_at, *sizes), memory)
    return rows


class _DeviceTensor:
    """What the launching code uses of a tensor on a GPU."""

    def __init__(self, memory: GlobalMemory, values: np.ndarray, offset: int = 0):
        self._memory, self.shape = memory, values.shape
        self._address, self.array = memory.place(values, offset)

    def data_ptr(self) -> int:
        return self._address

    def is_contiguous(self) -> bool:
        return True

    def clone(self) -> _DeviceTensor:
        return _DeviceTensor(self._memory, self.array)

    def new_empty(self, shape) -> _DeviceTensor:
        return _DeviceTensor(self._memory, np.full(shape, np.nan, self.array.dtype))

    def new_zeros(self, shape) -> _DeviceTensor:
        return _DeviceTensor(self._memory, np.zeros(shape, self.array.dtype))


class _Driver:
    """In place of the driver's bindings: a function is the text of its kernel."""

    CUresult = cuda_launch.driver.CUresult

    def __init__(self, memory: GlobalMemory, grids: list):
        self._memory, self._grids = memory, grids

    def cuLaunchKernel(self, text: str, *configuration):  # the driver's name
        x, y, z, *block, shared_bytes, _, parameters, _ = configuration
        kinds = [kind for _, kind in parse(text).parameters]
        pointers = (ctypes.c_uint64 * len(kinds)).from_address(parameters)
        sizes = {"u32": ctypes.c_uint32, "u64": ctypes.c_uint64}
        values = tuple(sizes[kind].from_address(at).value for kind, at in zip(kinds, pointers, strict=True))
        self._grids.append((x, y, z))
        ptx_machine.run(text, (x, y, z), tuple(block), shared_bytes, values, self._memory)
        return (self.CUresult.CUDA_SUCCESS,)


@contextmanager
def _launches(
    memory: GlobalMemory, grids: list, capability: tuple[int, int] = HOPPER, registers: int | None = None
) -> Iterator[None]:
    """Launches of the project run on the machine, with this memory."""
    replaced = {
        "driver": _Driver(memory, grids),
        "compute_capability": lambda device: capability,
        "binaries": lambda *what: _binaries(*what, registers or cuda_kernel.REGISTERS),
        "_fold_binary": _fold_binary,
        "_mixing_binary": _mixing_binary,
        "_function": _code,
    }
    with ExitStack() as stack:
        for name, value in replaced.items():
            stack.enter_context(patch.object(cuda_launch, name, value))
        stack.enter_context(patch.object(cuda_launch._thread, "buffers", {}, create=True))
        stack.enter_context(patch.object(torch._C, "_cuda_getCurrentRawStream", lambda device: 0, create=True))
        yield


class _NoLinker:
    """In place of the assembler: machine code is the PTX."""

    def __init__(self, source, options):
        self.code = source.code

    def link(self, target: str) -> _NoLinker:
        return self


@contextmanager
def _unassembled() -> Iterator[None]:
    with patch.object(cuda_compile, "Linker", _NoLinker), patch.object(Binary, "stack_bytes", 0):
        yield


def _code(binary: Binary) -> str:
    return binary.cubin.decode()


@cache
def _binaries(problem, contraction, owner: str, capability, registers: int) -> list[Binary]:
    with _unassembled(), patch.object(cuda_kernel, "REGISTERS", registers):
        return cuda_kernel.compile_pass(problem, contraction, owner, capability)


@cache
def _fold_binary(dtype: str, capability) -> Binary:
    with _unassembled():
        return cuda_fold.compile_fold(dtype, capability)


@cache
def _mixing_binary(part: str, dtype: str, capability) -> Binary:
    with _unassembled():
        return cuda_mixing.compile_mixing(part, dtype, capability)
