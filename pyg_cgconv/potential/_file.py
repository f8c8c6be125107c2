"""The file of a potential, marked so that no other file passes for one."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import IO

import torch

File = str | os.PathLike | IO[bytes]
"""A path, or what is open for reading or writing bytes."""

FORMAT = "pyg_cgconv.Potential"
IN_RUN_FOLDER = "potential.pt"  # what a training calls it
# Raise it whenever an older program would read the same content as another potential, or not at all.
FORMAT_VERSION = 3


def write(path: File, hyperparameters: dict, state_dict: dict, metadata: dict) -> None:
    """Writes what :func:`read` gives back, to a file or what is open for writing bytes.

    A file is written whole or not at all.

    Raises:
        OSError: it cannot be written.
        TypeError: ``metadata`` holds something other than JSON does.
    """
    try:
        metadata = json.loads(json.dumps(metadata))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"metadata: expected a dict of strings, numbers, lists and dicts, as in JSON, got {metadata!r} ({error})"
        ) from error
    content = {"hyperparameters": hyperparameters, "state_dict": state_dict, "metadata": metadata}
    whole = io.BytesIO()  # torch's own way to a file would call a full disk an internal error of torch
    torch.save({"format": FORMAT, "format_version": FORMAT_VERSION, **content}, whole)
    if not isinstance(path, (str, os.PathLike)):
        path.write(whole.getbuffer())
        return
    unfinished = Path(f"{os.fspath(path)}.unfinished")
    try:
        unfinished.write_bytes(whole.getbuffer())
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def read(path: File, map_location: torch.device | str) -> dict:
    """``hyperparameters``, ``state_dict`` and ``metadata`` that :func:`write` wrote. Nothing in the file is executed.

    A folder stands for the ``potential.pt`` in it; what is open for reading bytes is a file, too.

    Raises:
        FileNotFoundError, PermissionError: the file cannot be opened.
        ValueError: it is of something else, cut short, or of a later format.
    """
    if isinstance(path, (str, os.PathLike)) and os.path.isdir(path):
        folder, path = path, os.path.join(path, IN_RUN_FOLDER)
        if not os.path.exists(path):
            if members := sorted(str(file.parent) for file in Path(folder).glob(f"*/{IN_RUN_FOLDER}")):
                raise ValueError(
                    f"{_name(folder)} is the folder of a committee: take one of its members, or all by "
                    f"CommitteeCalculator({members})"
                )
            raise ValueError(_foreign(path, "there is no such file in the folder"))
    try:
        saved = torch.load(path, map_location=map_location, weights_only=True)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{_name(path)}: no such file or folder; expected a file that Potential.save wrote, or the folder of "
            "a training run"
        ) from error
    except PermissionError:
        raise
    except Exception as error:  # torch.load raises nearly anything for a file of something else
        raise ValueError(_foreign(path, "it is cut short or of another program")) from error
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise ValueError(_foreign(path, f"it is not marked as {FORMAT}"))
    if saved["format_version"] > FORMAT_VERSION:
        raise ValueError(
            f"{_name(path)} has format version {saved['format_version']}, this program reads {FORMAT_VERSION} "
            "and earlier: install the pyg_cgconv that wrote it, or a later one"
        )
    return {name: saved[name] for name in ("hyperparameters", "state_dict", "metadata")}


def _name(path: File) -> str:
    return repr(os.fspath(path)) if isinstance(path, (str, os.PathLike)) else repr(path)


def _foreign(path: File, reason: str) -> str:
    return (
        f"{_name(path)} is not a file that Potential.save wrote: {reason}. A training run writes such a file "
        "beside its checkpoints, potential.pt, and `python -m train export` makes one of a checkpoint"
    )
