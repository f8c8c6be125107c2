"""The parser of command lines and YAML, whose help names types as a person would."""

from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse import ArgumentParser, DefaultHelpFormatter


class ReadableHelp(DefaultHelpFormatter):
    """``cpu | cuda`` for ``Literal['cpu', 'cuda']``, ``list of int`` for ``list[int]``."""

    def _get_type_str(self, action) -> str | None:  # private: without it help would be as jsonargparse has it
        given = getattr(action, "_typehint", None) or action.type
        return super()._get_type_str(action) if given is None else type_name(given)


class Parser(ArgumentParser):
    """jsonargparse's, with :class:`ReadableHelp`."""

    def __init__(self, *args, formatter_class=ReadableHelp, **kwargs):
        super().__init__(*args, formatter_class=formatter_class, **kwargs)


def type_name(hint: Any) -> str:
    """A type as ``--help`` has it: values and alternatives between bars, ``null`` for None."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " | ".join(str(value) for value in inner)
    if origin in (Union, UnionType):
        return " | ".join(type_name(one) for one in inner)
    if origin is not None and issubclass(origin, Mapping):
        return f"table of {type_name(inner[1])}"
    if origin is not None and issubclass(origin, Sequence):
        item = type_name(inner[0])
        return f"list of ({item})" if "|" in item else f"list of {item}"
    return "null" if hint in (None, NoneType) else getattr(hint, "__name__", str(hint))
