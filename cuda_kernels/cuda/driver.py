"""The CUDA driver: the device, its context, and kernels that are loaded once and launched by handle.

The caller has made the device current (and with it the primary context that PyTorch uses) and keeps the memory alive.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Sequence
from functools import cache

from .binary import ENTRY, Binary

INSTALL = "install 'pyg-cgconv[cuda12]' or 'pyg-cgconv[cuda13]', as torch.version.cuda says, or use backend='reference'"

try:
    from cuda.bindings import driver
except ImportError as error:
    raise ImportError(f"backend: the CUDA kernels need cuda-bindings ({error}); {INSTALL}") from error


@cache
def compute_capability(device: int) -> tuple[int, int]:
    """The architecture of a GPU, such as (9, 0)."""
    attribute = driver.CUdevice_attribute
    major = _checked(driver.cuDeviceGetAttribute(attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device))
    minor = _checked(driver.cuDeviceGetAttribute(attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device))
    return major, minor


class Kernel:
    """A kernel on the current device. Loaded at once, so that a later launch may be captured in a CUDA graph."""

    def __init__(self, binary: Binary):
        self.binary = binary
        library = _checked(driver.cuLibraryLoadData(binary.cubin, [], [], 0, [], [], 0))
        self._function = _checked(driver.cuKernelGetFunction(_checked(driver.cuLibraryGetKernel(library, ENTRY))))
        _checked(driver.cuFuncLoad(self._function))
        limit = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        _checked(driver.cuFuncSetAttribute(self._function, limit, binary.shared_bytes))

    def launch(self, grid: tuple[int, int], packed: int, stream: int) -> None:
        """Start it on a stream, with parameters that `pack` put together: also where a CUDA graph is captured, or from
        any thread."""
        block, shared_bytes = self.binary.block, self.binary.shared_bytes
        _checked(driver.cuLaunchKernel(self._function, *grid, 1, *block, shared_bytes, stream, packed, 0))


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


def pack(values: Sequence[int]) -> int:
    """The address of an array of pointers to a kernel's parameters, which the driver copies during the launch: good
    until the next call with as many values in this thread."""
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
