"""Fixtures of all tests: the devices, and a compiled-kernel cache that no earlier run has filled."""

import os

# Threads that wait by spinning starve those that work when tests share their cores; OpenMP reads this once, with torch.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

# Each example compiles kernels: no time limit on one, and no search for a smaller failing one.
settings.register_profile(
    "kernels",
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("kernels")


@pytest.fixture(autouse=True, scope="session")
def fresh_kernel_cache(tmp_path_factory):
    """Kernels are compiled by the code under test, whatever the user's cache holds."""
    if "PYG_CGCONV_CACHE" not in os.environ:
        os.environ["PYG_CGCONV_CACHE"] = str(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    return torch.device(request.param)
