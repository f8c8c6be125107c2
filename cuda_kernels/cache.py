"""Compiled kernels on disk, found by the content that they were made from.

A key is a hash of the kernel's description, of this package's source and of every version that shapes the machine code,
so entries never go stale: they are only ever added. Files appear under their final name complete (written aside, then
renamed), so processes may share the folder. PYG_CGCONV_CACHE moves it. Only files and folders that nobody but this user
and root can change are used. Where that, or writing, is impossible, it costs a warning and a compilation.
"""

from __future__ import annotations

import hashlib
import os
import platform
import warnings
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from . import ownership

_VARIABLE = "PYG_CGCONV_CACHE"
_DIGEST_BYTES = hashlib.sha256().digest_size


def folder() -> Path:
    """Where compiled kernels are kept: PYG_CGCONV_CACHE, or `pyg_cgconv` among the user's caches.

    Raises:
        FileNotFoundError: the path begins with ~, and there is no such user, or the user has no home.
    """
    return _absolute(_chosen())


def _chosen() -> str:
    """As the environment names it, with the user's home for ~. XDG_CACHE_HOME counts only if it is absolute, as its
    specification says."""
    bases = os.environ.get("XDG_CACHE_HOME", ""), os.environ.get("LOCALAPPDATA", "")
    base = next(filter(os.path.isabs, bases), os.path.join("~", ".cache"))
    return os.path.expanduser(os.environ.get(_VARIABLE) or os.path.join(base, "pyg_cgconv"))


@lru_cache
def _absolute(path: str) -> Path:
    """A relative path is one in the working directory of its first use: programs that change that keep their cache."""
    if path.startswith("~"):
        user = Path(path).parts[0]
        missing = "this user has no home folder (HOME is not set)" if user == "~" else f"there is no user {user[1:]!r}"
        raise FileNotFoundError(f"{path!r} is no folder: {missing}")
    return Path(path).absolute()


def key(*content: object) -> str:
    """The name of what is made from `content` (by its repr) with the installed versions."""
    return hashlib.sha256(repr((content, _versions())).encode()).hexdigest()[:40]


def load(name: str) -> bytes | None:
    """The bytes stored under `name`, or None if there are none, they are damaged, or others could have written them."""
    try:
        kept = folder()
        ownership.check_folder(kept)
        stored = ownership.read(kept / name)
    except ownership.Untrusted as error:
        _warn_unused(str(error))
        return None
    except OSError:
        return None
    digest, content = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
    return content if hashlib.sha256(content).digest() == digest else None


def store(name: str, content: bytes) -> None:
    """Keep `content` under `name`, in place of what is there."""
    try:
        kept = folder()
        ownership.make_folder(kept)
        ownership.write(kept / name, hashlib.sha256(content).digest() + content)
    except ownership.Untrusted as error:
        _warn_unused(str(error))
    except OSError as error:
        # Not all of it: it may name a temporary file, and each name would warn again.
        _warn_unwritable(f"{_chosen()}: {error.strerror}" if error.strerror else str(error))


@lru_cache
def _warn_unused(reason: str) -> None:
    warnings.warn(
        f"compiled kernels on disk are not used, because others could put machine code there that would run as you: "
        f"{reason}. Mend that, or set {_VARIABLE} to a folder that only you can write ({_setting()})",
        stacklevel=4,
    )


@lru_cache
def _warn_unwritable(reason: str) -> None:
    warnings.warn(
        f"compiled kernels are not kept ({reason}): every process compiles them again; "
        f"set {_VARIABLE} to a folder that can be written ({_setting()})",
        stacklevel=4,
    )


def _setting() -> str:
    chosen = os.environ.get(_VARIABLE)
    return f"it is {chosen!r}" if chosen else "it is not set"


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
