"""What `make` and continuous integration run: each test, whatever its marks."""

import re
import shlex
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()


def options(target: str) -> list[str]:
    """Those of pytest in a target's recipe."""
    (recipe,) = re.findall(rf"^{target}:.*\n\t(.*)$", MAKEFILE, re.MULTILINE)
    (pytest,) = re.findall(r"^PYTEST := .* -m pytest (.*)$", MAKEFILE, re.MULTILINE)
    return shlex.split(recipe.replace("$(PYTEST)", pytest))


def test_together_two_targets_run_all():
    common = ["--numprocesses", "2", "--dist", "worksteal"]
    assert options("test") == [*common, "-m", "not thorough"]
    assert options("test-thorough") == [*common, "-m", "thorough"]


def test_continuous_integration_runs_all():
    lines = (ROOT / ".ci/run").read_text().splitlines()
    assert [line for line in lines if line.startswith("make ")] == [
        "make test",
        "make test-thorough",
        "make --jobs 2 test-dropins",
        "make docs",
    ]


def test_marks_that_targets_leave_out_are_known():
    """pytest takes a mark that is misspelt for one that no test has."""
    known = {
        line.partition(":")[0]
        for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]
    }
    for target in ("test", "test-fast"):
        words = options(target)
        expression = words[words.index("-m") + 1]
        assert set(re.findall(r"not (\w+)", expression)) <= known
        assert re.fullmatch(r"not \w+( and not \w+)*", expression)
