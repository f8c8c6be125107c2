"""numba's private interfaces: what it has compiled is kept, and found again."""

import numba
from numba import types

from cuda_kernels import cache
from cuda_kernels.cpu.compile import compiled


def kernel_that_adds(number):
    @numba.njit
    def kernel(a):
        return a + number

    return kernel


def test_a_kernel_is_compiled_once_and_then_found_on_disk(monkeypatch, tmp_path):
    monkeypatch.setenv("PYG_CGCONV_CACHE", str(tmp_path))
    signature = types.int64(types.int64)
    assert compiled(kernel_that_adds(1), signature, ("adds",))(2) == 3
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(cache, "store", None)
    assert compiled(kernel_that_adds(5), signature, ("adds",))(2) == 3, "what is on disk is not compiled again"
