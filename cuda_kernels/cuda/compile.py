"""From a Python kernel to machine code, without a GPU: numba-cuda makes PTX of it, NVIDIA's linker assembles that."""

from __future__ import annotations

import re
from collections.abc import Callable

from cuda.core import Linker, LinkerOptions, ObjectCode
from numba import cuda
from numba.cuda import types

from . import numpy_compat  # noqa: F401  (before numba compiles anything)
from .binary import ENTRY


def assembly(
    kernel: Callable, arguments: list[types.Type], bounds: tuple[int, int], compute_capability: tuple[int, int]
) -> str:
    """The kernel as PTX, for people and for the assembler; its name is `ENTRY`.

    Args:
        bounds: threads of a block, and blocks that share a multiprocessor's registers.
    """
    text, _ = cuda.compile_ptx(
        kernel,
        types.void(*arguments),
        cc=compute_capability,
        launch_bounds=bounds,
        abi="numba",
        device=False,
    )
    mangled = re.findall(r"\.entry\s+(\w+)", text)[0]
    return text.replace(mangled, ENTRY.decode())


def machine_code(assembly: str, compute_capability: tuple[int, int]) -> bytes:
    """A cubin for one GPU architecture.

    Raises:
        ValueError: the linker knows no such one.
    """
    arch = "sm_{}{}".format(*compute_capability)
    try:
        linker = Linker(ObjectCode.from_ptx(assembly.encode()), options=LinkerOptions(arch=arch))
    except Exception as error:  # of the linker's own class, which it does not promise
        if "UNRECOGNIZED_ARCH" not in str(error):
            raise
        raise ValueError(f"compute_capability: the CUDA linker that is installed knows no {arch}") from error
    return bytes(linker.link("cubin").code)
