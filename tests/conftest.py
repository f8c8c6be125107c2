"""Fixtures of all tests: the devices, and a compiled-kernel cache that no earlier run has filled.

Tests with random examples (``-m hypothesis``) have three profiles, chosen by ``--hypothesis-profile``:

| profile   | examples | which                                                            |
|-----------|----------|------------------------------------------------------------------|
| `fast`    | a fourth | the same in each run                                             |
| `default` |          | the same in each run                                             |
| `long`    | many     | others in each run; a failure prints the seed that repeats it    |
"""

from __future__ import annotations

import gc
import os
import secrets
from typing import TYPE_CHECKING

# Threads that wait by spinning starve those that work when tests share their cores; OpenMP reads this once, with torch.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
from hypothesis import HealthCheck, Phase, settings

if TYPE_CHECKING:
    import torch  # three seconds, which the process that only hands out tests need not wait for

for profile, percent in (("fast", 25), ("default", 100), ("long", 1000)):
    # Each example compiles kernels: no time limit on one, and no search for a smaller failing one.
    settings.register_profile(
        profile,
        max_examples=percent,
        deadline=None,
        derandomize=profile != "long",
        database=None,
        phases=[Phase.explicit, Phase.generate],
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
settings.load_profile("default")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    if config.option.hypothesis_profile == "long" and config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = secrets.randbits(32)


def pytest_runtest_setup(item):
    """The mark `cuda` is enough: such tests are skipped where there is no GPU."""
    if item.get_closest_marker("cuda"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no GPU")


def pytest_collection_finish():
    """What is imported stays to the end: Python need not look for garbage among it again, half a second each time."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter, config):
    if not settings.default.derandomize and terminalreporter.stats.get("failed"):
        options = f"-m hypothesis --hypothesis-profile long --hypothesis-seed {config.option.hypothesis_seed}"
        terminalreporter.write_line(f"the same random examples again: pytest {options}")


@pytest.fixture(autouse=True, scope="session")
def fresh_kernel_cache(tmp_path_factory):
    """Kernels are compiled by the code under test, whatever the user's cache holds; once for all processes."""
    if "PYG_CGCONV_CACHE" not in os.environ:
        folder = tmp_path_factory.getbasetemp()
        if "PYTEST_XDIST_WORKER" in os.environ:
            folder = folder.parent  # that of the run
        folder = folder / "kernels"
        folder.mkdir(mode=0o700, exist_ok=True)
        os.environ["PYG_CGCONV_CACHE"] = str(folder)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request) -> torch.device:
    import torch

    return torch.device(request.param)
