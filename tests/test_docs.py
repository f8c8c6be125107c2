"""What the README and the pages show: Python that runs, commands that are understood, files that are there.

The Python of the pages is run by ``make docs``.
"""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from pyg_cgconv import Potential
from train.cli import parse

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
README_LINES = 120
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
OF_A_FILE = (f"{REPOSITORY}/blob/main/", f"{REPOSITORY}/main/".replace("github.com", "raw.githubusercontent.com"))


def commands() -> list[str]:
    lines = {line.split("#")[0].strip() for page in PAGES for line in page.read_text().splitlines()}
    return sorted(line for line in lines if line.startswith("python -m train "))


@pytest.mark.parametrize("command", [command for command in commands() if "--help" not in command])
def test_training_commands_are_understood(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text("lr: 0.01\n")
    (tmp_path / "runs/first").mkdir(parents=True)
    for trained in ("runs/first/potential.pt", "old.pt"):  # what a fine-tuning starts from
        Potential(["H"], channels=1, lmax=0, layers=1).save(tmp_path / trained)
    arguments = shlex.split(command.removeprefix("python -m train "))
    if "--print_config" in arguments:
        with pytest.raises(SystemExit, match="0"):
            parse(arguments)
    elif "--resume" in arguments:  # which asks for a run: its options are those of the task
        place = arguments.index("--resume")
        begun = ["runs/first", "--structure", "start.xyz"] if arguments[0] == "md" else []
        parse([*arguments[:place], *begun, *arguments[place + 2 :]])
    else:
        parse(arguments)


def test_python_of_the_readme_runs():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def links(page: Path) -> list[str]:
    """Where its links and pictures lead, without anchors."""
    return re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    files = [page.parent / link for link in links(page) if ":" not in link]
    for start in OF_A_FILE:
        files += [ROOT / link.removeprefix(start) for link in links(page) if link.startswith(start)]
    assert [file for file in files if not file.exists()] == []


def test_the_readme_can_be_read_where_its_files_are_not():
    """On a package index, links and pictures that are relative lead nowhere."""
    assert [link for link in links(ROOT / "README.md") if not link.startswith("https://")] == []


def test_pictures_of_the_readme_are_files_and_not_pages_about_them():
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert pictures
    assert all(picture.startswith(OF_A_FILE[1]) for picture in pictures)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES
