"""What can be known of launching without a GPU."""

import ctypes
import sys

import pytest

pytest.importorskip("cuda.bindings.driver", reason="the CUDA driver's bindings are not installed")

from cuda_kernels import cache
from cuda_kernels.cuda import driver, launch
from cuda_kernels.passes import Pass
from cuda_kernels.problem import Index
from tests.problems import FORWARD, named

WALK = Pass(Index.TARGET, FORWARD)


def test_kernels_are_compiled_once_and_then_found_on_disk(monkeypatch, tmp_path):
    pytest.importorskip("numba_cuda")
    monkeypatch.setenv("PYG_CGCONV_CACHE", str(tmp_path))
    problem = named("nequip-water").problem
    compiled = launch.binaries(problem, WALK, (9, 0))
    launch.binaries.cache_clear()
    monkeypatch.setattr(cache, "store", None)
    monkeypatch.setattr("cuda_kernels.cuda.kernel.compile_pass", None)
    assert launch.binaries(problem, WALK, (9, 0)) == compiled
    launch.binaries.cache_clear()


def test_old_architectures_are_refused_by_name():
    with pytest.raises(ValueError, match=r"compute capability 7\.5.*need 8\.0.*reference"):
        launch.binaries(named("nequip-water").problem, WALK, (7, 5))


def test_a_missing_compiler_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PYG_CGCONV_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "cuda_kernels.cuda.kernel", None)
    with pytest.raises(ImportError, match=r"numba-cuda.*pyg-cgconv\[cuda13\]"):
        launch.binaries(named("nequip-water").problem, Pass(Index.SOURCE, FORWARD), (9, 0))


def test_parameters_are_pointers_to_the_values(monkeypatch):
    values = (3, 2**40, 5)
    monkeypatch.setattr(driver._thread, "buffers", {}, raising=False)
    address = driver.pack(values)
    pointers = (ctypes.c_void_p * 3).from_address(address)
    assert [ctypes.c_uint64.from_address(pointer).value for pointer in pointers] == list(values)
