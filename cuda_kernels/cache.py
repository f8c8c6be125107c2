"""Compiled kernels on disk, found by the content that they were made from.

A key is a hash of the kernel's description, of this package's source and of every version that shapes the machine code,
so entries never go stale: they are only ever added. Files appear under their final name complete (written aside, then
renamed), so processes may share the folder. PYG_CGCONV_CACHE moves it; an unwritable folder costs a warning and a
compilation.
"""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
import warnings
from functools import lru_cache
from importlib import metadata
from pathlib import Path

_DIGEST_BYTES = hashlib.sha256().digest_size


def folder() -> Path:
    """Where compiled kernels are kept."""
    if chosen := os.environ.get("PYG_CGCONV_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(base) / "pyg_cgconv"


def key(*content: object) -> str:
    """The name of what is made from `content` (by its repr) with the installed versions."""
    return hashlib.sha256(repr((content, _versions())).encode()).hexdigest()[:40]


def load(name: str) -> bytes | None:
    """The bytes stored under `name`, or None if there are none or they are damaged."""
    try:
        stored = (folder() / name).read_bytes()
    except OSError:
        return None
    digest, content = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
    return content if hashlib.sha256(content).digest() == digest else None


def store(name: str, content: bytes) -> None:
    """Keep `content` under `name`."""
    try:
        folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder())
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(content).digest() + content)
            os.replace(temporary, folder() / name)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        _warn_unwritable(str(error))


@lru_cache(maxsize=1)
def _warn_unwritable(reason: str) -> None:
    warnings.warn(
        f"compiled kernels are not kept ({reason}): every process compiles them again; "
        "set PYG_CGCONV_CACHE to a folder that can be written",
        stacklevel=4,
    )


@lru_cache(maxsize=1)
def _versions() -> tuple:
    source = hashlib.sha256()
    package = Path(__file__).parent
    for file in sorted(package.rglob("*.py")):
        source.update(file.relative_to(package).as_posix().encode() + file.read_bytes())
    packages = (
        "numba",
        "llvmlite",
        "numba-cuda",
        "nvidia-nvvm",
        "nvidia-cuda-nvcc-cu12",
        "nvidia-nvjitlink",
        "nvidia-nvjitlink-cu12",
    )
    return source.hexdigest(), platform.machine(), platform.python_version(), tuple(map(installed_version, packages))


def installed_version(package: str) -> str | None:
    """The version of a distribution, None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
