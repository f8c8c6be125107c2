"""Which versions of other packages are known."""

from __future__ import annotations

import re
import warnings
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple


class Known(NamedTuple):
    """A package in the versions that are known.

    Attributes:
        distribution: What pip calls it.
        first: The first version that has what is replaced.
        before: The first version that nobody has tried.
    """

    distribution: str
    first: str
    before: str

    def missing(self) -> ImportError:
        """What is raised where it cannot be imported."""
        try:
            installed = f"is installed as {version(self.distribution)}"
        except PackageNotFoundError:
            installed = "is not installed"
        return ImportError(
            f"{self.distribution} {installed}; accelerate() knows {self.first} and later: "
            f"pip install '{self.distribution}>={self.first},<{self.before}'"
        )

    def check(self) -> None:
        """Warns if a later version is installed than any that was tried.

        Raises:
            ImportError: an earlier one than `first` is installed.
        """
        installed = version(self.distribution)
        if _numbers(installed) < _numbers(self.first):
            raise self.missing()
        if _numbers(installed) >= _numbers(self.before):
            warnings.warn(
                f"{self.distribution} {installed} is installed; accelerate() was tried with versions before "
                f"{self.before}. Compare energies and forces with those of restore(model)",
                stacklevel=3,
            )


def _numbers(given: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", given.partition("+")[0])][:3]
