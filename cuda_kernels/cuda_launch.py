"""Running the CUDA kernels: compiled once an architecture, kept on disk, loaded once a process, launched by handle.

Kernels found on disk are run without importing numba. The caller has made the device current (and with it the primary
context that PyTorch uses) and keeps the memory alive.
"""

from __future__ import annotations

import ctypes
import pickle
import threading
from functools import cache

from . import cache as disk
from .binary import ENTRY, Binary
from .polynomial import Contraction
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
    name = disk.key("cuda", problem.key, contraction.spec, owner, capability)
    if stored := disk.load(name):
        return pickle.loads(stored)
    # Only now: numba and the compiler take a second to import, and kernels on disk need neither.
    try:
        from .cuda_kernel import compile_pass
    except ImportError as error:
        raise ImportError(f"backend: the CUDA kernels are compiled by numba-cuda ({error}); {INSTALL}") from error

    compiled = compile_pass(problem, contraction, owner, capability)
    disk.store(name, pickle.dumps(compiled))
    return compiled


@cache
def _loaded(
    problem: Problem, contraction: Contraction, owner: str, device: int
) -> list[tuple[Binary, driver.CUfunction]]:
    """Kernels ready to launch on a device. Loaded at once, so that a later launch may be captured in a CUDA graph."""
    result = []
    for binary in binaries(problem, contraction, owner, compute_capability(device)):
        library = _checked(driver.cuLibraryLoadData(binary.cubin, [], [], 0, [], [], 0))
        kernel = _checked(driver.cuLibraryGetKernel(library, ENTRY))
        function = _checked(driver.cuKernelGetFunction(kernel))
        _checked(driver.cuFuncLoad(function))
        limit = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        _checked(driver.cuFuncSetAttribute(function, limit, binary.shared_bytes))
        result.append((binary, function))
    return result


def launch(
    problem: Problem,
    contraction: Contraction,
    owner: str,
    inputs: list[int],
    outputs: list[int],
    lists: list[int],
    rows: int,
    copy_bytes: int,
    device: int,
    stream: int,
) -> None:
    """Start one pass on a stream (see `cuda_kernel.kernel_of`); all arguments but counts are addresses.

    Args:
        copy_bytes: 0, or the distance of the copies of the edge features' gradients, one for each `feature_copies`.
    """
    if rows == 0:
        return
    _ensure_context(device)
    done = 0
    for binary, function in _loaded(problem, contraction, owner, device):
        places = [
            place + done * copy_bytes * name.startswith("y")
            for name, place in zip(contraction.outputs, outputs, strict=True)
        ]
        parameters = _parameters([*inputs, *places, *lists, copy_bytes, rows])
        grid, block = (-(-rows // binary.warps), binary.channel_blocks, 1), (LANES, binary.warps, 1)
        _checked(driver.cuLaunchKernel(function, *grid, *block, binary.shared_bytes, stream, parameters, 0))
        done += binary.channel_blocks


def feature_copies(problem: Problem, contraction: Contraction, owner: str, device: int) -> int:
    """Warps that add to the gradient of one edge's features."""
    return sum(binary.channel_blocks for binary in binaries(problem, contraction, owner, compute_capability(device)))


def _ensure_context(device: int) -> None:
    """Make the device's primary context current in this thread, if none is.

    PyTorch binds it at a thread's first use of CUDA, and a thread of its autograd engine may come here before that.
    """
    if not int(_checked(driver.cuCtxGetCurrent())):
        _checked(driver.cuCtxSetCurrent(_checked(driver.cuDevicePrimaryCtxRetain(device))))


_thread = threading.local()


def _parameters(values: list[int]) -> int:
    """The address of an array of pointers to the values, which the driver copies during the launch."""
    buffers = _thread.__dict__.setdefault("buffers", {})
    if len(values) not in buffers:
        numbers = (ctypes.c_uint64 * len(values))()
        start = ctypes.addressof(numbers)
        buffers[len(values)] = numbers, (ctypes.c_void_p * len(values))(*range(start, start + 8 * len(values), 8))
    numbers, pointers = buffers[len(values)]
    numbers[:] = values
    return ctypes.addressof(pointers)


def _checked(result):
    error, *values = result
    if error != driver.CUresult.CUDA_SUCCESS:
        _, name = driver.cuGetErrorName(error)
        _, text = driver.cuGetErrorString(error)
        raise RuntimeError(f"CUDA driver: {name.decode()}: {text.decode()}")
    return values[0] if values else None
