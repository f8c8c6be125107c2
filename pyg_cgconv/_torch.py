"""The private interfaces of PyTorch that this project uses: all of them, so that an upgrade is checked in one place.

`tests/pyg_cgconv/test_torch.py` has a test for each.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

_PLAIN = (Tensor, torch.nn.Parameter)


def is_plain(*tensors: Tensor) -> bool:
    """Whether these are tensors with memory, and nothing records or replaces the operations on them: no compilation, no
    dispatch mode, no transform of torch.func."""
    for tensor in tensors:  # a loop: this is asked at each call, and a generator takes longer
        if type(tensor) not in _PLAIN:
            return False
    return (
        not torch.compiler.is_compiling()
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._functorch.maybe_current_level() is None
    )


def recorder(function: type[torch.autograd.Function]) -> Callable:
    """`function.apply` without torch.func's part of it, which plain tensors do not need and which takes longer than a
    small kernel."""
    return super(torch.autograd.Function, function).apply  # type: ignore[misc]  # torch's types lack the class in C


def assert_on_device(condition: Tensor, message: str) -> None:
    """Fail where the tensor is, without waiting for it; the message must not change from call to call."""
    torch._assert_async(condition, message)


def without_modes() -> AbstractContextManager:
    """A context in which tensors have numbers, also while a compiler traces with tensors that have none."""
    return _disable_current_modes()


def storage_is_shared_by_nobody(storage: torch.UntypedStorage) -> bool:
    """Whether this object is the only one that refers to the memory."""
    return torch._C._storage_Use_Count(storage._cdata) == 1


def current_device() -> int:
    """The number of the current GPU."""
    return torch._C._cuda_getDevice()


def current_stream(device: int) -> int:
    """The handle of a GPU's current stream."""
    return torch._C._cuda_getCurrentRawStream(device)
