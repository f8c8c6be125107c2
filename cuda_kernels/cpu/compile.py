"""Compiled once and kept on disk. The private interfaces of numba that this project uses are all here."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import llvmlite.binding as llvm
from numba.core import config
from numba.core.compiler import CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher
from numba.core.typing import Signature

from .. import cache, elf

_OF_THE_RUN = {
    "CACHE_DIR",
    "GDB_BINARY",
    "NUMBA_DEFAULT_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "THREADING_LAYER",
    "THREADING_LAYER_PRIORITY",
}
"""Settings of numba that machine code does not depend on, and that differ between runs of one program."""


def compiled(kernel: Dispatcher, signature: Signature, content: tuple) -> Dispatcher:
    """The kernel, which numba has only parsed, compiled for one signature, or found on disk by its `content`.

    Raises:
        RuntimeError: numba has been told not to compile.
    """
    if config.DISABLE_JIT:
        raise RuntimeError(
            "NUMBA_DISABLE_JIT is set, and kernels are compiled by numba; unset it, or use backend='reference'"
        )
    # numba does not expect another thread here, and would not compile any more after an interruption.
    with global_compiler_lock, _interrupted_later():
        kernel.typingctx.refresh()
        kernel.targetctx.refresh()
    kernel._cache = _DiskCache(cache.key("cpu", content, _host(), _settings()))
    try:
        kernel.compile(signature)
    except RuntimeError as error:
        if "no compiled object yet" not in str(error):
            raise
        # An interruption that LLVM's callback has swallowed: it has no way to pass it on.
        raise KeyboardInterrupt from error
    kernel.disable_compile()
    return kernel


@contextmanager
def _interrupted_later() -> Iterator[None]:
    """Ctrl-C has its effect after this. It interrupts the main thread only."""
    is_pythons = signal.getsignal(signal.SIGINT) is not None  # None: a handler that could not be put back
    if threading.current_thread() is not threading.main_thread() or not is_pythons:
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        signal.raise_signal(signal.SIGINT)


if hasattr(os, "register_at_fork"):
    # A forked process would wait for ever for a thread of its parent that compiles. So a fork waits until it has done.
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )


class _DiskCache:
    """numba's compilation cache, found by what the kernel was generated from instead of by its source file."""

    def __init__(self, name: str):
        self.name = name

    def load_overload(self, signature, target_context):
        target_context.refresh()
        stored = cache.load(self.name)
        try:
            return None if stored is None else self._rebuilt(stored, target_context)
        except Exception:  # bytes that are no kernel fail anywhere in pickle, numba and LLVM; they are replaced
            return None

    def save_overload(self, signature, result):
        cache.store(self.name, pickle.dumps((self.name, result._reduce())))

    def _rebuilt(self, stored: bytes, target_context) -> CompileResult | None:
        name, reduced = pickle.loads(stored)
        _, _, (object_code, _) = reduced[0]  # the library: name, kind, code with what other kernels may inline
        is_whole = elf.is_whole(object_code) or sys.platform != "linux"
        return CompileResult._rebuild(target_context, *reduced) if name == self.name and is_whole else None


@lru_cache  # a third of a millisecond
def _host() -> tuple[str, str]:
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


def _settings() -> list[tuple[str, object]]:
    """numba's settings that may shape machine code: from the environment, its configuration file, or set by a program.
    New releases have new ones, so these are all but those that certainly do not."""
    config.reload_config()  # as the compiler does
    names = sorted(name for name in vars(config) if name.isupper() and not name.startswith("CUDA_"))
    return [(name, getattr(config, name)) for name in names if name not in _OF_THE_RUN]
