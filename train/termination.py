"""SIGTERM, by which schedulers end a job: the process exits with 143, which says so, a training after a checkpoint."""

import signal
import threading

from lightning.pytorch import Trainer

EXIT_CODE = 128 + signal.SIGTERM  # as shells report it


def exit_at_once(*_) -> None:
    """A handler of the signal: what is open is closed, what is unfinished removed."""
    raise SystemExit(EXIT_CODE)


class Termination:
    """Hears the signal for a training, which asks for it where it can write a checkpoint.

    Lightning's own way would lose the steps since the last checkpoint and exit with 0.
    """

    def __init__(self):
        self._heard = False

    def listen(self) -> None:
        """To the end of the training: Lightning then gives the signal back to the handler that it had before."""
        if threading.current_thread() is threading.main_thread():  # no other one may do this
            signal.signal(signal.SIGTERM, self._hear)

    def _hear(self, *_) -> None:
        self._heard = True

    def is_asked_for(self, trainer: Trainer) -> bool:
        """Whether any process of the training has heard the signal: all of them wait for the answer, which is one."""
        return trainer.strategy.reduce_boolean_decision(self._heard, all=False)

    @staticmethod
    def exit(trainer: Trainer) -> None:
        """Ends this process. The first one says why; of the others Lightning would take 143 for a failure and kill."""
        raise SystemExit(EXIT_CODE if trainer.is_global_zero else 0)
