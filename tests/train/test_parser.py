from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Optional

import pytest

from train.cli import parse
from train.parser import type_name


@pytest.mark.parametrize(
    ("hint", "name"),
    [
        (int, "int"),
        (Path, "Path"),
        (str | None, "str | null"),
        (Literal["cpu", "cuda"], "cpu | cuda"),
        (bool | Literal["auto"], "bool | auto"),
        (Optional[Literal["float32"]], "float32 | null"),  # noqa: UP045
        (tuple[int, ...], "list of int"),
        (str | list[str], "str | list of str"),
        (list[Literal["energy", "forces"]] | None, "list of (energy | forces) | null"),
        (Sequence[Path], "list of Path"),
        (dict[str, float] | None, "table of float | null"),
    ],
)
def test_types_are_named_as_a_person_would(hint, name):
    assert type_name(hint) == name


@pytest.mark.parametrize(
    "arguments", ["md17", "frames", "qm9", "evaluate", "predict", "export", "md", "evaluate --md17"]
)
def test_help_knows_no_types_of_python(arguments, capsys):
    help_option = ".help" if "--" in arguments else " --help"
    with pytest.raises(SystemExit, match="0"):
        parse(f"{arguments}{help_option}".split())
    shown = capsys.readouterr().out
    assert not [
        word for word in ("Literal", "Union", "Optional", "typing", "<class", "tuple", "list[") if word in shown
    ]
