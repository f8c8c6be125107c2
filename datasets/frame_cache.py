"""Processed frames on disk, under a name that changes with all that they were made from.

The file is one of :func:`torch.save`, which is mapped: the operating system reads what is looked at, drops it again
where memory is short, and shares it among processes. PyG's ``OnDiskDataset``, a database, would read each frame through
SQL, and keep attributes as pickles, which run code.
"""

import errno
import hashlib
import io
import os
import pickle
import tempfile
import types
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch_geometric.data import Data


class _StatePickler(pickle.Pickler):
    """Classes by name, objects by their state; functions, which pickle would take by name only, are refused."""

    def reducer_override(self, obj):
        if isinstance(obj, types.FunctionType) and obj.__module__.split(".")[0] not in ("copyreg", "numpy", "torch"):
            raise pickle.PicklingError(f"it holds the function {obj.__qualname__}")
        return NotImplemented


def fingerprint(paths: Sequence[Path], settings: tuple, **transforms) -> str:
    """A name for the frames that come of the files' contents, of settings with a repr, and of the transforms' state.

    Raises:
        ValueError: a transform is or holds a function, or cannot be pickled.
    """
    digest = hashlib.sha256(repr(settings).encode())
    for path in paths:  # the name, which may tell the format, but not the folder
        with open(path, "rb") as file:
            digest.update(f"{path.name!r} {hashlib.file_digest(file, 'sha256').hexdigest()}".encode())
    for name, applied in transforms.items():
        state = io.BytesIO()
        try:
            _StatePickler(state, protocol=5).dump(applied)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                f"{name}: the cache cannot tell {applied!r} from another ({error}); give an object of a class with its "
                "settings as attributes, such as RadiusGraph(5.0), or leave `cache` out"
            ) from error
        digest.update(f"{name} {hashlib.sha256(state.getvalue()).hexdigest()}".encode())
    return digest.hexdigest()[:32]


@contextmanager
def folder_of_cache(folder: Path) -> Iterator[Path]:
    """``folder``, made if it is not there, and removed again if nothing came of it.

    Raises:
        OSError: it cannot be made, or nothing can be written there.
    """
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        complaint = f"cache: the folder cannot be made or written ({error.strerror}); name another one"
        raise OSError(error.errno, complaint, str(folder)) from error
    try:
        yield folder
    except BaseException:
        if is_new:
            with suppress(OSError):  # another process writes there, too
                folder.rmdir()
        raise


def save(path: Path, data: Data, slices, num_frames_read: int):
    """Whole or not at all, also where several processes of several hosts write the same.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{uuid.uuid4().hex}.unfinished")
    try:
        torch.save({"data": data.to_dict(), "slices": slices, "num_frames_read": num_frames_read}, unfinished)
        os.replace(unfinished, path)
    except RuntimeError as error:  # what torch makes of a full disk
        raise OSError(
            errno.EIO, f"the cache cannot be written ({error}); make room, or name another one", str(path)
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)


def load(path: Path) -> tuple[Data, dict | None, int]:
    """What :func:`save` wrote, mapped. What is written to the tensors stays in this process.

    Raises:
        ValueError: it is broken.
    """
    try:
        kept = torch.load(path, weights_only=True, mmap=True)
        return Data.from_dict(kept["data"]), kept["slices"], kept["num_frames_read"]
    except Exception as error:  # torch.load's are many
        raise ValueError(f"{path}: the cache file is broken ({error}); remove it, and it is made again") from error
