"""Files and folders that only this user and root can change: kernels are machine code, which runs as this user.

Windows has no user numbers: nothing is checked there.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Untrusted(PermissionError):
    """Somebody else can change a file, or a folder on the way to it."""


def make_folder(folder: Path, may_be_shared: bool = False) -> None:
    """Make a folder, and those above it, that nobody else can enter, where they are missing; then check it.

    Raises:
        Untrusted: somebody else can change it, or a folder above it.
        OSError: it cannot be made.
    """
    if not folder.exists():
        make_folder(folder.parent, may_be_shared=True)
        try:
            folder.mkdir()
        except FileExistsError:
            pass  # another process has made it meanwhile
        else:
            folder.chmod(0o700)  # whatever the umask
    check_folder(folder, may_be_shared)


def check_folder(folder: Path, may_be_shared: bool = False) -> None:
    """Check a folder, those above it, and symbolic links on the way with what they lead to.

    From the root on: what has been checked can no longer be replaced by others while the rest is checked.

    Args:
        may_be_shared: also a folder with the sticky bit will do, such as /tmp: what one user has in it, no other can
            replace. Folders above are always allowed to be such.

    Raises:
        Untrusted: somebody else can change one of them.
        OSError: it does not exist, or is no folder.
    """
    if not folder.is_dir():
        folder.stat()  # says why, if it does not exist
        raise NotADirectoryError(f"{folder} is a file, not a folder")
    path, following = "", list(reversed(folder.absolute().parts))
    while following:
        path = os.path.join(path, following.pop())
        status = os.lstat(path)
        _check(path, status, may_be_shared or bool(following))
        if stat.S_ISLNK(status.st_mode):
            following += reversed(Path(os.readlink(path)).parts)
            path = os.path.dirname(path)


def read(path: Path) -> bytes:
    """The content of a file in a folder that has been checked.

    Raises:
        Untrusted: somebody else can change it.
        OSError: there is no such file, or a symbolic link.
    """
    with open(path, "rb", opener=_open_no_link) as file:
        _check(str(path.parent / "*"), os.fstat(file.fileno()))
        return file.read()


def write(path: Path, content: bytes) -> None:
    """Make or replace a file, which appears complete and which nobody else can open.

    Raises:
        OSError: the folder cannot be written.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o600)  # whatever the umask
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))


def _check(path: str, status: os.stat_result, may_be_shared: bool = False) -> None:
    """Raise `Untrusted` where others can change it."""
    if not hasattr(os, "getuid"):
        return
    if status.st_uid not in (os.getuid(), 0):
        raise Untrusted(f"{path} belongs to user {status.st_uid}, not to user {os.getuid()} or root")
    mode = stat.S_IMODE(status.st_mode)
    is_shared = may_be_shared and stat.S_ISDIR(status.st_mode) and mode & stat.S_ISVTX
    if mode & _OTHERS_WRITE and not is_shared and not stat.S_ISLNK(status.st_mode):
        raise Untrusted(f"{path} can be written by other users (mode {mode:04o}): chmod go-w {path}")
