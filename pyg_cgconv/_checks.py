"""Checks of arguments that several packages make."""

from __future__ import annotations


def check_choice(name: str, given: object, choices: tuple) -> None:
    """Raises a ValueError unless an argument is one of its choices."""
    if given not in choices:
        raise ValueError(f"{name}: expected one of {choices}, got {given!r}")
