"""What an installation gets."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = [
    Requirement(r) for r in [*PROJECT["dependencies"], *EXTRAS["cuda12"], *EXTRAS["cuda13"], *EXTRAS["train"]]
]


def ends(versions: SpecifierSet) -> bool:
    return any(version.operator in ("<", "<=", "==", "~=") for version in versions)


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_no_release_is_installed_that_nobody_has_tried(requirement):
    """Private interfaces of some are used, and all may change; numba-cuda follows none of them any more."""
    assert ends(requirement.specifier)


def test_no_python_is_promised_that_nobody_has_tried():
    versions = SpecifierSet(PROJECT["requires-python"])
    tried = [
        c.rpartition(" ")[2] for c in PROJECT["classifiers"] if c.startswith("Programming Language :: Python :: 3.")
    ]
    assert ends(versions)
    assert all(version in versions for version in tried)
    assert f"3.{max(int(version.partition('.')[2]) for version in tried) + 1}" not in versions


@pytest.mark.parametrize("package", ["numba", "llvmlite", "numpy", "torch"])
def test_what_private_interfaces_belong_to_ends_at_a_minor_version(package):
    (requirement,) = (r for r in REQUIREMENTS if r.name == package)
    (end,) = (version.version for version in requirement.specifier if version.operator == "<")
    assert "." in end


@pytest.mark.parametrize("name", ["mace", "nequip", "sevennet"])
def test_the_versions_that_are_installed_are_those_that_are_accelerated(name):
    source = (Path(__file__).parents[1] / f"pyg_cgconv/integrations/{name}.py").read_text()
    distribution, first, before = re.search(r'Known\("(.*?)", "(.*?)", "(.*?)"\)', source).groups()
    assert EXTRAS[name] == [f"{distribution}>={first},<{before}"]
