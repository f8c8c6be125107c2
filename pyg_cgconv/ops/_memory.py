"""Memory for large results on a CPU, used again when its last tensor is gone.

Fresh memory costs a page fault every 4 KB at its first use: for the gradients of mace-medium's weights (82 MB) four
times as long as the kernel that writes them. PyTorch's CPU allocator gives all large memory back to the system, so the
results of every training step would pay that.
"""

from __future__ import annotations

import math
import os
import threading

import torch
from torch import Tensor

from .._torch import storage_is_shared_by_nobody

SMALLEST = 1 << 20
"""Bytes below which malloc itself keeps the memory."""
KEPT = 1 << 31
"""Bytes that are kept for later at most; what lies idle longest is given up first."""


class Pool:
    """Storages that no tensor may be using any more. Any thread may ask.

    Memory belongs to its tensors: a bare storage object does not keep it from being used again.
    """

    def __init__(self, kept: int = KEPT):
        self.kept = kept
        self.reset()

    def reset(self) -> None:
        """Forget all memory, and who is asking for some."""
        self._storages: list[torch.UntypedStorage] = []  # the longest unused first
        self._lock = threading.Lock()

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor like `torch.empty`'s."""
        size = math.prod(shape) * dtype.itemsize
        if size < SMALLEST:
            return torch.empty(shape, dtype=dtype)
        tensor = torch.empty(0, dtype=dtype)
        with self._lock:  # until the tensor has the storage, which others would take to be free
            tensor.set_(self._storage(_rounded(size)), 0, shape)  # type: ignore[call-overload]  # strides are optional
        return tensor

    def _storage(self, size: int) -> torch.UntypedStorage:
        """One that nobody uses, for whoever holds the lock."""
        # Memory shared with another process may be in use there.
        self._storages = [s for s in self._storages if not s.is_shared()]
        found = next((s for s in self._storages if s.nbytes() == size and storage_is_shared_by_nobody(s)), None)
        if found is None:
            found = torch.UntypedStorage(size)
        else:
            self._storages = [s for s in self._storages if s is not found]
        self._storages.append(found)
        while sum(s.nbytes() for s in self._storages) > self.kept:
            del self._storages[0]
        return found


def _rounded(size: int) -> int:
    """A size at most an eighth larger, so that batches of about as many edges use one piece of memory."""
    step = 1 << max(0, size.bit_length() - 4)
    return -(-size // step) * step


POOL = Pool()
if hasattr(os, "register_at_fork"):  # a thread that holds the lock does not live on in the child, to give it back
    os.register_at_fork(after_in_child=POOL.reset)
