"""Where runs and commands write: nothing that is there is overwritten."""

import time
from pathlib import Path


def refuse_existing(name: str, path: Path) -> None:
    """Raises ValueError where ``path``, given as the option ``name``, exists or has no folder to be written to."""
    if path.exists():
        raise ValueError(f"{name}={str(path)!r} exists already: name another file, or remove this one")
    if not path.parent.is_dir():
        raise ValueError(f"{name}={str(path)!r}: there is no folder {str(path.parent)!r}, make it first")


def dated_folder(command: str, name: str) -> Path:
    """Where results go if no folder is named: ``runs/<command>-<name>-<time>``."""
    return Path("runs") / f"{command}-{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def create_results_folder(run_dir: Path | None, command: str, name: str) -> Path:
    """An empty folder, :func:`dated_folder` unless one is named.

    Raises:
        ValueError: something is there already.
    """
    folder = run_dir or dated_folder(command, name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"run_dir={str(folder)!r} holds something already: name another folder, or remove this one")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
