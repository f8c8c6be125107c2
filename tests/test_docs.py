"""What the README and the pages show: Python that runs, commands that are understood, files that are there.

The Python of the pages is run by ``make docs``.
"""

import re
import shlex
from pathlib import Path

import pytest

from train.cli import parse

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
README_LINES = 120


def commands() -> list[str]:
    lines = {line.split("#")[0].strip() for page in PAGES for line in page.read_text().splitlines()}
    return sorted(line for line in lines if line.startswith("python -m train "))


@pytest.mark.parametrize("command", [command for command in commands() if "--help" not in command])
def test_training_commands_are_understood(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text("lr: 0.01\n")
    arguments = shlex.split(command.removeprefix("python -m train "))
    if "--print_config" in arguments:
        with pytest.raises(SystemExit, match="0"):
            parse(arguments)
    elif "--resume" in arguments:  # which asks for a run: its options are those of the task
        parse([argument for argument in arguments if argument not in ("--resume", "runs/first")])
    else:
        parse(arguments)


def test_python_of_the_readme_runs():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    targets = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES
