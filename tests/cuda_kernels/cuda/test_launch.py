"""What can be known of launching without a GPU."""

import ctypes
import os
import pickle
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

pytest.importorskip("cuda.bindings.driver", reason="the CUDA driver's bindings are not installed")

from cuda_kernels import cache
from cuda_kernels.cuda import driver, launch
from cuda_kernels.cuda.binary import Binary
from cuda_kernels.passes import Pass
from cuda_kernels.problem import Index
from tests.problems import FORWARD, named

WALK = Pass(Index.TARGET, FORWARD)


@pytest.mark.slow
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


@pytest.fixture
def compilations(monkeypatch, tmp_path) -> list[int]:
    """The binaries that were compiled, each with its number; a pass has one, as small as a file of machine code is."""
    monkeypatch.setenv("PYG_CGCONV_CACHE", str(tmp_path))
    compiled: list[int] = []

    def compile_pass(*_):
        compiled.append(len(compiled))
        return [Binary(EMPTY_ELF, 1, (32, 1, 1), compiled[-1])]

    monkeypatch.setitem(sys.modules, "cuda_kernels.cuda.kernel", SimpleNamespace(compile_pass=compile_pass))
    launch.binaries.cache_clear()
    yield compiled
    launch.binaries.cache_clear()


EMPTY_ELF = b"\x7fELF".ljust(64, b"\0")
WHAT = named("nequip-water").problem, WALK, (9, 0)


def numbers_found() -> list[int]:
    """Of the binaries that a process finds."""
    launch.binaries.cache_clear()
    return [binary.shared_bytes for binary in launch.binaries(*WHAT)]


@pytest.mark.parametrize(
    "other",
    [
        lambda name, found: b"",
        lambda name, found: pickle.dumps((name, found))[:-9],
        lambda name, found: pickle.dumps("something else"),
        lambda name, found: pickle.dumps(("another", found)),
        lambda name, found: pickle.dumps((name, [])),
        lambda name, found: pickle.dumps((name, [replace(found[0], cubin=EMPTY_ELF[:32])])),
    ],
    ids=["empty", "cut short", "something else", "of another kernel", "none", "half of its code"],
)
def test_other_content_with_its_digest_is_replaced(other, compilations, tmp_path):
    assert numbers_found() == [0]
    (file,) = tmp_path.iterdir()
    cache.store(file.name, other(*pickle.loads(cache.load(file.name))))
    assert numbers_found() == [1]
    assert numbers_found() == [1], "it is on disk now"


def test_machine_code_that_does_not_load_is_replaced(compilations, monkeypatch):
    def load(binary):
        if binary.shared_bytes == 0:
            raise RuntimeError("CUDA driver: CUDA_ERROR_INVALID_IMAGE")
        return binary

    monkeypatch.setattr(launch, "Kernel", load)
    assert [binary.shared_bytes for binary in launch._loaded(launch.binaries, launch._load_all, *WHAT)] == [1]
    assert numbers_found() == [1], "it is on disk now"


def test_code_for_other_settings_of_the_compiler_is_compiled_anew(compilations, monkeypatch, tmp_path):
    assert numbers_found() == [0]
    with monkeypatch.context() as patch:
        patch.setenv("NUMBA_OPT", "0")
        assert numbers_found() == [1]
    with monkeypatch.context() as patch:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / ".numba_config.yaml").write_text("opt: 0\n")
        patch.chdir(tmp_path / "elsewhere")
        assert numbers_found() == [2]
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    assert numbers_found() == [0]


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows has no user numbers")
def test_code_that_others_could_have_written_is_not_run(compilations, tmp_path):
    assert numbers_found() == [0]
    tmp_path.chmod(0o770)
    cache._warn_unused.cache_clear()
    with pytest.warns(UserWarning, match=f"chmod go-w {tmp_path}"):
        assert numbers_found() == [1]
    tmp_path.chmod(0o700)
    assert numbers_found() == [0]


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
