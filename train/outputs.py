"""Where runs and commands write: nothing that is there is overwritten."""

import errno
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


def refuse_existing(name: str, path: Path) -> None:
    """Raises ValueError where ``path``, given as the option ``name``, exists or has no folder to be written to."""
    if path.exists():
        raise ValueError(f"{name}={str(path)!r} exists already: name another file, or remove this one")
    if not path.parent.is_dir():
        raise ValueError(f"{name}={str(path)!r}: there is no folder {str(path.parent)!r}, make it first")
    try_to_write(name, path, path.parent)


def make_folder(folder: Path) -> None:
    """Makes the folder that the option ``run_dir`` names, unless it is there.

    Raises:
        ValueError: a file is in the way, or nothing can be written there.
    """
    if not folder.is_dir():
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            reason = "it is a file" if folder.exists() else error.strerror
            raise ValueError(f"run_dir={str(folder)!r} cannot be made ({reason}): name another folder") from error
    try_to_write("run_dir", folder, folder)


def try_to_write(name: str, given: Path, folder: Path) -> None:
    """Raises ValueError where no file can be made in ``folder``, which the option ``name`` asks for."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(
            f"{name}={str(given)!r} cannot be written ({error.strerror}): name another place, or give access"
        ) from error


def dated_folder(command: str, name: str) -> Path:
    """Where results go if no folder is named: ``runs/<command>-<name>-<time>``."""
    return Path("runs") / f"{command}-{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def create_results_folder(run_dir: Path | None, command: str, name: str) -> Path:
    """An empty folder, :func:`dated_folder` unless one is named.

    Raises:
        ValueError: something is there already, or it cannot be made or written.
    """
    folder = run_dir or dated_folder(command, name)
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"run_dir={str(folder)!r} holds something already: name another folder, or remove this one")
    make_folder(folder)
    return folder


@contextmanager
def writing_to(place: Path) -> Iterator[None]:
    """Where the disk is full, or does not let this process write, the OSError says so of ``place``."""
    try:
        yield
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        raise OSError(
            error.errno,
            f"cannot write to {str(place)!r}: {error.strerror}. What was whole there before still is; make room, or "
            "name another place",
        ) from error


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A name to write under: the file becomes ``path`` when it is whole, and is removed where it cannot be finished."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        yield unfinished
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def in_a_sentence(mistake: Exception) -> str:
    """What a person reads of it: the operating system's errors without their number."""
    if isinstance(mistake, OSError) and mistake.strerror:
        return mistake.strerror if mistake.filename is None else f"{mistake.filename!r}: {mistake.strerror}"
    return str(mistake)
