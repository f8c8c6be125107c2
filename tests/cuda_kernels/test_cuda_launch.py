"""What can be known of launching without a GPU."""

import ctypes
import sys

import pytest

pytest.importorskip("cuda.bindings.driver", reason="the CUDA driver's bindings are not installed")

from cuda_kernels import cache, cuda_launch
from cuda_kernels.polynomial import FORWARD
from tests.problems import named


def test_kernels_are_compiled_once_and_then_found_on_disk(monkeypatch, tmp_path):
    pytest.importorskip("numba_cuda")
    monkeypatch.setenv("PYG_CGCONV_CACHE", str(tmp_path))
    problem = named("nequip-water").problem
    compiled = cuda_launch.binaries(problem, FORWARD, "g", (9, 0))
    cuda_launch.binaries.cache_clear()
    monkeypatch.setattr(cache, "store", None)
    monkeypatch.setattr("cuda_kernels.cuda_kernel.compile_pass", None)
    assert cuda_launch.binaries(problem, FORWARD, "g", (9, 0)) == compiled
    cuda_launch.binaries.cache_clear()


def test_old_architectures_are_refused_by_name():
    with pytest.raises(ValueError, match=r"compute capability 7\.5.*need 8\.0.*reference"):
        cuda_launch.binaries(named("nequip-water").problem, FORWARD, "g", (7, 5))


def test_a_missing_compiler_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PYG_CGCONV_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "cuda_kernels.cuda_kernel", None)
    with pytest.raises(ImportError, match=r"numba-cuda.*pyg-cgconv\[cuda13\]"):
        cuda_launch.binaries(named("nequip-water").problem, FORWARD, "x", (9, 0))


def test_parameters_are_pointers_to_the_values(monkeypatch):
    values = (3, 2**40, 5)
    monkeypatch.setattr(cuda_launch._thread, "buffers", {}, raising=False)
    address = cuda_launch._parameters(values)
    pointers = (ctypes.c_void_p * 3).from_address(address)
    assert [ctypes.c_uint64.from_address(pointer).value for pointer in pointers] == list(values)
