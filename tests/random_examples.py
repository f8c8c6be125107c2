"""How many random examples a test takes, and what waits for the profile that takes most."""

import pytest
from hypothesis import settings


def examples(count: int, long: int | None = None) -> settings:
    """``count`` of them; the profile ``fast`` of tests/conftest.py takes a fourth of it, and ``long`` ten times it, or
    as many as are given here."""
    if long is not None and _is_long():
        return settings(max_examples=long)
    return settings(max_examples=max(1, count * settings.default.max_examples // 100))


def only_long():
    """Marks of a test that takes too long for each run: `make test-long` has it."""
    return [pytest.mark.hypothesis, pytest.mark.skipif(not _is_long(), reason="takes long; make test-long runs it")]


def _is_long() -> bool:
    return settings.default.max_examples > 100
