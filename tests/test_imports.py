"""Which room may import which, read from the source."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("cuda_kernels", "pyg_cgconv", "datasets", "train", "examples")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
}


@cache
def imports(module: str) -> frozenset[tuple[str, str]]:
    """(module, name) of each import, at the top and in functions; not those for type checkers only."""
    path, found = MODULES[module], set()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    tree = ast.parse(path.read_text())
    for_types = {
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            origin = ".".join(filter(None, (above, node.module)))
            found |= {(origin, alias.name) for alias in node.names}
    return frozenset(found)


def own(module: str) -> set[str]:
    """The modules of this project that a module imports."""
    result = set()
    for origin, name in imports(module):
        for candidate in (f"{origin}.{name}", origin):
            if candidate in MODULES:
                result.add(candidate)
                break
    return result - {module}


def test_no_module_imports_itself_by_a_detour():
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for other in sorted(own(module)):
                visit(other, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("cuda_kernels", {"torch", "torch_geometric", "e3nn", "pyg_cgconv", "datasets", "train"}),
        ("pyg_cgconv", {"datasets", "train"}),
        ("datasets", {"train"}),
    ],
)
def test_arrows_go_one_way(package, forbidden):
    for module in MODULES:
        if module.partition(".")[0] == package:
            assert not {origin.partition(".")[0] for origin, _ in imports(module)} & forbidden, module


def is_private(name: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


@pytest.mark.parametrize("package", ["datasets", "train", "examples"])
def test_no_private_name_of_another_package_is_imported(package):
    for module in MODULES:
        if module.partition(".")[0] == package:
            for origin, name in imports(module):
                if origin.partition(".")[0] != package and origin.partition(".")[0] in PACKAGES:
                    assert not is_private(f"{origin}.{name}"), f"{module}: from {origin} import {name}"


def test_private_modules_stay_in_their_package():
    """`pyg_cgconv.nn` asks `pyg_cgconv.ops` for a name, and not one of its modules."""
    for module in MODULES:
        if module.startswith("pyg_cgconv."):
            room = module.split(".")[1]
            for origin, _ in imports(module):
                parts = origin.split(".")
                if parts[0] == "pyg_cgconv" and len(parts) > 2 and parts[1] != room:
                    assert not is_private(".".join(parts[2:])), f"{module}: {origin}"


def test_every_package_has_a_map_that_names_its_modules():
    for name, path in MODULES.items():
        if path.name == "__init__.py" and name.startswith(("cuda_kernels", "pyg_cgconv", "train")):
            text = ast.get_docstring(ast.parse(path.read_text())) or ""
            for module in path.parent.glob("*.py"):
                if not module.stem.startswith("__"):
                    assert module.stem.removeprefix("_") in text, f"{name}: its docstring does not name {module.stem}"


@pytest.mark.slow
def test_the_core_does_not_import_pyg():
    """Importing PyG replaces torch.index_select, which breaks torch.jit.script of other packages' models."""
    script = """
import sys
import pyg_cgconv, pyg_cgconv.ops, pyg_cgconv.tensor_product, pyg_cgconv.cuda_graphs
import pyg_cgconv.integrations.e3nn
from pyg_cgconv.nn import Gate, Linear, NodeProducts, RadialNetwork, spherical_harmonics
import torch
products = NodeProducts("4x0e+4x1o", 4, "4x0e")
products(torch.randn(3, 16)).sum().backward()
pyg_cgconv.Edges(torch.tensor([[0, 1], [1, 0]]), 2).by_source
assert "torch_geometric" not in sys.modules
pyg_cgconv.TensorProductConv
assert "torch_geometric" in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_integrations_name_nothing_that_needs_pyg():
    """Whether the packages that they are for are installed or not."""
    allowed = {"", "_functions", "_torch", "_checks", "cuda_graphs", "ops", "tensor_product", "nn", "integrations"}
    for module in MODULES:
        if module.startswith("pyg_cgconv.integrations"):
            for origin, name in imports(module):
                if origin.partition(".")[0] == "pyg_cgconv":
                    assert (*origin.split("."), "")[1] in allowed, f"{module}: {origin}"
                    assert name not in ("TensorProductConv", "InteractionBlock"), f"{module}: {name}"
                assert origin.partition(".")[0] != "torch_geometric", module
