"""How many random examples a test takes."""

from hypothesis import settings


def examples(count: int) -> settings:
    """``count`` of them; the profile ``fast`` of tests/conftest.py takes a fourth of it, and ``long`` ten times it."""
    return settings(max_examples=max(1, count * settings.default.max_examples // 100))
