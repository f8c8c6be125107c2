"""One process writes in a run folder: a second one is refused while it lives."""

import errno
import fcntl
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from lightning.pytorch.utilities import rank_zero_only

from train.outputs import try_to_write

LOCK = "running.lock"
HELD = (errno.EACCES, errno.EAGAIN)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keeps other processes out of the run in ``folder``.

    The operating system holds the lock, and lets go of it when the process ends, however it ends. Of the processes of
    several devices the first one has it for all.

    Raises:
        ValueError: another process has it, and is named; or the folder cannot be written.
    """
    if rank_zero_only.rank:  # type: ignore[attr-defined]  # Lightning sets it on the function
        yield
        return
    path = folder / LOCK
    try_to_write("run folder", folder, folder)
    with open(path, "a+") as file:
        _lock(file, path)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _lock(file: TextIO, path: Path) -> None:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # flock's would be held by children, too, that may live longer
    except OSError as error:
        if error.errno not in HELD:
            warnings.warn(f"{path}: no locks here ({error.strerror}), a second run would not be noticed", stacklevel=4)
            return
        file.seek(0)
        raise ValueError(_refusal(path, file.read() or "another process")) from error
    if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
        raise ValueError(_refusal(path, "a process that has just ended"))  # and took the file away meanwhile


def _refusal(path: Path, holder: str) -> str:
    return (
        f"run folder {str(path.parent)!r}: {holder} writes there; wait for its end or stop it, then go on with "
        f"--resume {path.parent}"
    )
