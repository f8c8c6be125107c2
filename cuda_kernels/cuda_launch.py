"""Running the CUDA kernels: compiled once an architecture, kept on disk, loaded once a process, launched by handle.

Kernels found on disk are run without importing numba. The caller has made the device current (and with it the primary
context that PyTorch uses) and keeps the memory alive.
"""

from __future__ import annotations

import ctypes
import pickle
import struct
import threading
from collections.abc import Callable, Sequence
from functools import cache

from . import cache as disk
from .binary import ENTRY, FOLD_BLOCKS, FOLD_WARPS, Binary
from .mixing import WEIGHTS, Table, tiles_of
from .polynomial import Contraction, kind
from .problem import Problem
from .staging import LANES

INSTALL = "install 'pyg-cgconv[cuda12]' or 'pyg-cgconv[cuda13]', as torch.version.cuda says, or use backend='reference'"

try:
    from cuda.bindings import driver
except ImportError as error:
    raise ImportError(f"backend: the CUDA kernels need cuda-bindings ({error}); {INSTALL}") from error

MINIMUM_CAPABILITY = (8, 0)
"""The first architecture with asynchronous copies to shared memory."""


@cache
def compute_capability(device: int) -> tuple[int, int]:
    """The architecture of a GPU, such as (9, 0)."""
    attribute = driver.CUdevice_attribute
    return tuple(
        _checked(driver.cuDeviceGetAttribute(name, device))
        for name in (
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        )
    )


@cache
def binaries(problem: Problem, contraction: Contraction, owner: str, capability: tuple[int, int]) -> list[Binary]:
    """The kernels of one pass, from disk or else compiled now.

    Raises:
        ValueError: the architecture is older than the kernels' instructions.
        ImportError: there is nothing on disk, and no compiler.
    """
    if capability < MINIMUM_CAPABILITY:
        found, needed = (".".join(map(str, version)) for version in (capability, MINIMUM_CAPABILITY))
        raise ValueError(
            f"backend: this GPU has compute capability {found}, the CUDA kernels need {needed} (copies to shared "
            "memory that do not wait); use backend='reference', or a CPU"
        )

    def compiled() -> list[Binary]:
        from .cuda_kernel import compile_pass

        return compile_pass(problem, contraction, owner, capability)

    return _stored(disk.key("cuda", problem.key, contraction.spec, owner, capability), compiled)


def _stored(name: str, compiled: Callable):
    """What is on disk under this name, or else what `compiled` returns, which is put there."""
    if stored := disk.load(name):
        return pickle.loads(stored)
    # Only now: numba and the compiler take a second to import, and kernels on disk need neither.
    try:
        result = compiled()
    except ImportError as error:
        raise ImportError(f"backend: the CUDA kernels are compiled by numba-cuda ({error}); {INSTALL}") from error
    disk.store(name, pickle.dumps(result))
    return result


@cache
def _fold_binary(dtype: str, capability: tuple[int, int]) -> Binary:
    """The kernel that adds up the rows of nodes with many edges."""

    def compiled() -> Binary:
        from .cuda_fold import compile_fold

        return compile_fold(dtype, capability)

    return _stored(disk.key("fold", dtype, capability), compiled)


class Pass:
    """The kernels of one pass on one device, ready to launch: also where a CUDA graph is captured, or from any
    thread."""

    def __init__(self, problem: Problem, contraction: Contraction, owner: str, device: int):
        self._owned = [n for n, output in enumerate(contraction.outputs) if kind(output) == owner]
        capability = compute_capability(device)
        self._kernels = [(_function(b), b) for b in binaries(problem, contraction, owner, capability)]
        self._fold = _function(_fold_binary(problem.dtype, capability))
        self._length = problem.row(owner).length

    def __call__(
        self,
        inputs: Sequence[int],
        outputs: Sequence[int],
        partials: Sequence[int],
        lists: Sequence[int],
        rows: int,
        continuing: int,
        stream: int,
    ) -> None:
        """Start the kernels on a stream, one after the other (see `cuda_kernel.kernel_of`).

        Args:
            inputs, outputs: addresses of the contraction's operands.
            partials: for each output of the owner's kind the address of `continuing` rows, if there are any.
            lists: addresses of starts, owners, edges, others and continuing.
            rows, continuing: all rows of the lists, and how many of them are not their node's first.
        """
        if rows == 0:
            return
        *listed, continuing_nodes = lists
        nodes = rows - continuing
        partial_rows = dict(zip(self._owned, partials, strict=False))
        every = [partial_rows.get(n, 0) for n in range(len(outputs))]
        parameters = _parameters((*inputs, *outputs, *every, *listed, rows, nodes))
        for function, binary in self._kernels:
            grid = -(-rows // binary.block[2]) * binary.channel_parts, 1, 1
            launched = driver.cuLaunchKernel(function, *grid, *binary.block, binary.shared_bytes, stream, parameters, 0)
            _checked(launched)
        for n, partial in partial_rows.items():
            parameters = _parameters((outputs[n], partial, continuing_nodes, continuing, nodes, self._length))
            warps = continuing * -(-self._length // LANES)
            grid = min(FOLD_BLOCKS, -(-warps // FOLD_WARPS)), 1, 1
            _checked(driver.cuLaunchKernel(self._fold, *grid, LANES, FOLD_WARPS, 1, 0, stream, parameters, 0))


@cache
def _mixing_binary(part: str, dtype: str, capability: tuple[int, int]) -> Binary:
    """A kernel of linear maps of features."""

    def compiled() -> Binary:
        from .cuda_mixing import compile_mixing

        return compile_mixing(part, dtype, capability)

    return _stored(disk.key("mixing", part, dtype, capability), compiled)


class MixingLaunch:
    """One part of a linear map on one device, ready to launch, as `Pass` is."""

    def __init__(self, part: str, table: Table, dtype: str, device: int):
        binary = _mixing_binary(part, dtype, compute_capability(device))
        self._function, self._block = _function(binary), binary.block
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
        grid = (self._tiles, 1, 1) if self._part == WEIGHTS else (tiles_of(nodes), self._tiles, 1)
        if all(grid):
            parameters = _parameters((*operands, *tables, nodes, length, other))
            launched = driver.cuLaunchKernel(self._function, *grid, *self._block, 0, stream, parameters, 0)
            _checked(launched)


def _function(binary: Binary) -> driver.CUfunction:
    """A kernel of the current device. Loaded at once, so that a later launch may be captured in a CUDA graph."""
    library = _checked(driver.cuLibraryLoadData(binary.cubin, [], [], 0, [], [], 0))
    function = _checked(driver.cuKernelGetFunction(_checked(driver.cuLibraryGetKernel(library, ENTRY))))
    _checked(driver.cuFuncLoad(function))
    limit = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    _checked(driver.cuFuncSetAttribute(function, limit, binary.shared_bytes))
    return function


def capture_number(stream: int) -> int:
    """The number of the CUDA graph that is being captured on a stream, unique in the process."""
    error, _, number, *_ = driver.cuStreamGetCaptureInfo(stream)
    _checked((error,))
    return int(number)


_thread = threading.local()


def ensure_context(device: int) -> None:
    """Make the device's primary context current in this thread, if none is.

    PyTorch binds it at a thread's first use of CUDA, and a thread of its autograd engine may come here before that.
    """
    if not hasattr(_thread, "buffers"):
        if not int(_checked(driver.cuCtxGetCurrent())):
            _checked(driver.cuCtxSetCurrent(_checked(driver.cuDevicePrimaryCtxRetain(device))))
        _thread.buffers = {}


def _parameters(values: tuple[int, ...]) -> int:
    """The address of an array of pointers to the values, which the driver copies during the launch."""
    count = len(values)
    if count not in _thread.buffers:
        numbers = ctypes.create_string_buffer(8 * count)
        start = ctypes.addressof(numbers)
        pointers = (ctypes.c_void_p * count)(*range(start, start + 8 * count, 8))
        _thread.buffers[count] = struct.Struct(f"{count}q").pack_into, numbers, pointers, ctypes.addressof(pointers)
    pack, numbers, _, address = _thread.buffers[count]
    pack(numbers, 0, *values)
    return address


def _checked(result):
    error, *values = result
    if error != driver.CUresult.CUDA_SUCCESS:
        _, name = driver.cuGetErrorName(error)
        _, text = driver.cuGetErrorString(error)
        raise RuntimeError(f"CUDA driver: {name.decode()}: {text.decode()}")
    return values[0] if values else None
