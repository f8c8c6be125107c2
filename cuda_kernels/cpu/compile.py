"""Compiled once and kept on disk. The private interfaces of numba that this project uses are all here."""

from __future__ import annotations

import pickle

import llvmlite.binding as llvm
from numba.core.compiler import CompileResult
from numba.core.dispatcher import Dispatcher
from numba.core.typing import Signature

from .. import cache


def compiled(kernel: Dispatcher, signature: Signature, content: tuple) -> Dispatcher:
    """The kernel, which numba has only parsed, compiled for one signature, or found on disk by its `content`."""
    kernel._cache = _DiskCache(cache.key("cpu", content, _host()))
    kernel.compile(signature)
    kernel.disable_compile()
    return kernel


class _DiskCache:
    """numba's compilation cache, found by what the kernel was generated from instead of by its source file."""

    def __init__(self, name: str):
        self.name = name

    def load_overload(self, signature, target_context):
        target_context.refresh()
        stored = cache.load(self.name)
        return stored and CompileResult._rebuild(target_context, *pickle.loads(stored))

    def save_overload(self, signature, result):
        cache.store(self.name, pickle.dumps(result._reduce()))


def _host() -> tuple[str, str]:
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
