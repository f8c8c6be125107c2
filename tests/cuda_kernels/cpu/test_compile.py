"""numba's private interfaces: what it has compiled is kept, and found again."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numba
import pytest
from numba import types

from cuda_kernels import cache
from cuda_kernels.cpu.compile import compiled

ROOT = Path(__file__).parents[3]
SIGNATURE = types.int64(types.int64)


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("PYG_CGCONV_CACHE", str(tmp_path))
    return tmp_path


def kernel_that_adds(number):
    @numba.njit
    def kernel(a):
        return a + number

    return kernel


def adds(number) -> int:
    """What is under one name on disk, or a kernel that adds this number, adds to zero."""
    return compiled(kernel_that_adds(number), SIGNATURE, ("adds",))(0)


def test_a_kernel_is_compiled_once_and_then_found_on_disk(monkeypatch, folder):
    assert adds(1) == 1
    assert len(list(folder.iterdir())) == 1
    monkeypatch.setattr(cache, "store", None)
    assert adds(5) == 1, "what is on disk is not compiled again"


def cut_short(content: bytes) -> bytes:
    return content[: len(content) // 2]


def with_half_its_code(content: bytes) -> bytes:
    name, ((library, kind, (code, shared)), *rest) = pickle.loads(content)
    return pickle.dumps((name, ((library, kind, (cut_short(code), shared)), *rest)))


def of_another_kernel(content: bytes) -> bytes:
    return pickle.dumps(("another", pickle.loads(content)[1]))


@pytest.mark.parametrize(
    "other",
    [cut_short, with_half_its_code, of_another_kernel, lambda _: b"", lambda _: pickle.dumps("something else")],
    ids=["cut short", "half of its code", "of another kernel", "empty", "something else"],
)
def test_other_content_with_its_digest_is_replaced(other, folder):
    adds(1)
    (file,) = folder.iterdir()
    cache.store(file.name, other(cache.load(file.name)))
    assert adds(2) == 2
    assert adds(3) == 2, "the second kernel is on disk now"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("NUMBA_CPU_NAME", "generic"),
        ("NUMBA_CPU_FEATURES", ""),
        ("NUMBA_OPT", "0"),
        ("NUMBA_OPT", "max"),
        ("NUMBA_ENABLE_AVX", "0"),
        ("NUMBA_LOOP_VECTORIZE", "0"),
        ("NUMBA_SLP_VECTORIZE", "1"),
        ("NUMBA_DEBUGINFO", "1"),
        ("NUMBA_BOUNDSCHECK", "1"),
        ("NUMBA_LLVM_REFPRUNE_PASS", "0"),
    ],
)
def test_code_for_other_settings_of_numba_is_compiled_anew(setting, value, monkeypatch):
    assert adds(1) == 1
    with monkeypatch.context() as patch:
        patch.setenv(setting, value)
        assert adds(2) == 2
        assert adds(3) == 2
    assert adds(4) == 1


def test_settings_that_a_program_makes_count_as_well(monkeypatch):
    assert adds(1) == 1
    monkeypatch.setattr(numba.config, "SLP_VECTORIZE", 1)
    assert adds(2) == 2


@pytest.mark.parametrize(
    ("setting", "value"), [("NUMBA_THREADING_LAYER", "workqueue"), ("NUMBA_CACHE_DIR", "x"), ("NUMBA_GDB_BINARY", "x")]
)
def test_settings_of_the_run_do_not_compile_again(setting, value, monkeypatch):
    assert adds(1) == 1
    monkeypatch.setenv(setting, value)
    assert adds(2) == 1


THREADS = """
import threading, torch
from pyg_cgconv import TensorProductConv

layer = TensorProductConv("8x0e+8x1o", "0e+1o", "0e+1o", backend="cpu")
inputs = torch.randn(5, 32), torch.randint(0, 5, (2, 9)), torch.randn(9, 4), torch.randn(9, layer.weight_numel)
begin, found = threading.Barrier(6), []

def call():
    begin.wait()
    found.append(layer(*inputs))

threads = [threading.Thread(target=call) for _ in range(begin.parties)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(found) == len(threads)
for each in found:
    torch.testing.assert_close(each, found[0])
"""


@pytest.mark.slow
def test_the_first_calls_of_several_threads():
    """At the same time, in a process that has compiled nothing yet."""
    subprocess.run([sys.executable, "-c", THREADS], check=True, cwd=ROOT)


def test_numba_that_may_not_compile_is_named(monkeypatch):
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    with pytest.raises(RuntimeError, match=r"NUMBA_DISABLE_JIT.*unset it"):
        adds(1)


IN_A_PROCESS_OF_ITS_OWN = """
from tests.cuda_kernels.cpu.test_compile import adds
print("result", adds(1))
"""


class Foreign:
    """When it is unpickled, it prints a line."""

    def __reduce__(self):
        return print, ("foreign code runs",)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows has no user numbers")
def test_code_that_others_could_have_written_is_not_run(folder):
    def output() -> str:
        command = [sys.executable, "-c", IN_A_PROCESS_OF_ITS_OWN]
        return subprocess.run(command, check=True, cwd=ROOT, text=True, stdout=-1, stderr=subprocess.STDOUT).stdout

    assert "result 1" in output()
    (file,) = folder.iterdir()
    cache.store(file.name, pickle.dumps(Foreign()))
    for path in (file, folder):
        before = path.stat().st_mode
        path.chmod(0o770)
        shown = output()
        assert "result 1" in shown
        assert "foreign code runs" not in shown
        assert f"chmod go-w {folder}" in shown
        path.chmod(before)
        cache.store(file.name, pickle.dumps(Foreign()))
    assert "foreign code runs" in output(), "the user's own file is read"


def test_an_interruption_that_llvm_swallows_is_one(monkeypatch):
    """Ctrl-C within a callback of LLVM leaves numba without the object, which it says in an error of its own."""
    kernel, swallowed = kernel_that_adds(1), RuntimeError("no compiled object yet for <Library 'kernel'>")

    def interrupted(signature):
        raise swallowed

    monkeypatch.setattr(kernel, "compile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compiled(kernel, SIGNATURE, ("adds",))
    assert adds(1) == 1, "a later call compiles"


@pytest.mark.thorough
def test_ctrl_c_while_kernels_are_compiled(tmp_path):
    """At whatever moment it comes; a later call works. One that comes in a callback of LLVM's may be lost."""
    program = tmp_path / "program.py"
    program.write_text(INTERRUPTED)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


INTERRUPTED = """
import os, signal, threading, torch
from pyg_cgconv import TensorProductConv

irreps = "8x0e+8x1o+8x2e", "0e+1o+2e", "0e+1o+2e"
layer, reference = (TensorProductConv(*irreps, backend=backend) for backend in ("cpu", "reference"))
x, edge_index, edge_attr = torch.randn(5, 72), torch.randint(0, 5, (2, 9)), torch.randn(9, 9)
inputs = x, edge_index, edge_attr, torch.randn(9, layer.weight_numel)
expected, interruptions = reference(*inputs), 0
signal.signal(signal.SIGINT, signal.default_int_handler)  # which children of a shell's background jobs ignore
for attempt in range(5):
    timer = threading.Timer(0.1 + 0.2 * attempt, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        layer(*inputs)
        timer.join()
    except KeyboardInterrupt:
        interruptions += 1
assert interruptions
torch.testing.assert_close(layer(*inputs), expected)
"""
