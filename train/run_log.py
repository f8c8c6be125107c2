"""What a run says: on the screen, and in ``log.txt`` of its folder."""

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import BufferingHandler
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from train.report import versions

LOG = "log.txt"
MANY_LINES = 100_000  # more than are said before there is a folder
logger = logging.getLogger("train")
logger.setLevel(logging.DEBUG)
logger.propagate = False


class Screen(logging.Handler):
    """Standard output as it is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), flush=True)


class LogFile(logging.FileHandler):
    """A file; where the disk is full, the run hears of it."""

    def handleError(self, record: logging.LogRecord) -> None:
        raise  # it is called where an exception is being handled


logger.addHandler(Screen(logging.INFO))


@rank_zero_only
def say(text: str) -> None:
    """To the screen and to the file; once for several devices, and nothing of no text."""
    if text:
        logger.info(text)


@rank_zero_only
def note(text: str) -> None:
    """To the file only."""
    logger.debug(text)


@contextmanager
def listening() -> Iterator[None]:
    """Keeps what is said, and warnings, for a run whose folder is not there yet; :func:`written_to` takes it."""
    before, shown = BufferingHandler(MANY_LINES), warnings.showwarning

    def show(message, category, filename, lineno, file=None, line=None) -> None:
        shown(message, category, filename, lineno, file, line)
        note(f"{category.__name__}: {message}")

    logger.addHandler(before)
    warnings.showwarning = show
    try:
        yield
    finally:
        logger.removeHandler(before)
        warnings.showwarning = shown


@contextmanager
def written_to(folder: Path) -> Iterator[None]:
    """All that is said meanwhile goes to the end of ``log.txt`` in ``folder``, after what was said before.

    Of the processes of several devices the first one writes it. Why it ended, if not by its end, is the last line.
    """
    if rank_zero_only.rank:  # type: ignore[attr-defined]  # Lightning sets it on the function
        yield
        return
    said_before = [handler for handler in logger.handlers if isinstance(handler, BufferingHandler)]
    for handler in said_before:
        logger.removeHandler(handler)
    file, used = LogFile(folder / LOG, encoding="utf-8", errors="backslashreplace"), versions()
    logger.addHandler(file)
    try:
        begun = f"{time.strftime('%Y-%m-%d %H:%M:%S')}, pyg-cgconv {used.get('pyg-cgconv')}, torch {used['torch']}"
        file.handle(logger.makeRecord(logger.name, logging.DEBUG, "", 0, begun, (), None))
        for record in (record for handler in said_before for record in handler.buffer):
            file.handle(record)
        yield
    except BaseException as error:
        note(f"ended by {type(error).__name__}: {error}")
        raise
    finally:
        logger.removeHandler(file)
        file.close()
