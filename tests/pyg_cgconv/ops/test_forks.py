"""Processes that are forked from one that has used the kernels: they compute, alone, what their parent does.

One process runs the programs of all tests, one after the other. One that waits for ever fails.
"""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import json, multiprocessing, os, signal, sys, threading, time, traceback
import torch
from pyg_cgconv import TensorProductConv

IRREPS = "8x0e+8x1o", "0e+1o", "0e+1o"
layer = TensorProductConv(*IRREPS)
torch.manual_seed(0)
edge_index = torch.randint(0, 50, (2, 2000))
x, edge_attr, weight = torch.randn(50, 32), torch.randn(2000, 4), torch.randn(2000, layer.weight_numel)

def results(layer=layer, dtype=torch.float32):
    inputs = [t.to(dtype).requires_grad_() for t in (x, edge_attr, weight)]
    out = layer(inputs[0], edge_index, *inputs[1:])
    return [out.detach(), *torch.autograd.grad(out.square().sum(), inputs)]

reference = TensorProductConv(*IRREPS, backend="reference")
expected = [t.float() for t in results(reference, torch.float64)]

def check(number=0):
    "In a forked process."
    assert torch.get_num_threads() == 1
    check_results()
    return number

def check_results():
    for result, exact in zip(results(), expected, strict=True):
        assert (result - exact).norm() < 1e-5 * exact.norm()

def forked(function):
    pid = os.fork()
    if not pid:
        signal.alarm(60)
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    return pid

def wait_for(*pids):
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * len(pids)

if __name__ == "__main__":
    for line in sys.stdin:
        try:
            check_results()
            exec(json.loads(line), globals())
            said = "done"
        except Exception:
            said = traceback.format_exc()
        print(json.dumps(said), flush=True)
"""
LIMIT = 240.0  # seconds
pytestmark = [pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system"), pytest.mark.thorough]


class Parent:
    """The process, with two threads, and started when there is a program for it."""

    def __init__(self, folder: Path):
        self.script = folder / "program.py"
        self.script.write_text(PROGRAM)
        self.process: subprocess.Popen | None = None

    def run(self, body: str) -> None:
        if self.process is None:
            environment = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
            pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
            self.process = subprocess.Popen([sys.executable, self.script], env=environment, **pipes)
        self.process.stdin.write(json.dumps(body) + "\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], LIMIT)[0]:
            self.end()
            pytest.fail(f"no end after {LIMIT} seconds")
        said = self.process.stdout.readline()
        if not said:
            self.end()
            pytest.fail("the process has died")
        assert json.loads(said) == "done", json.loads(said)

    def end(self) -> None:
        """With its children."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()
            self.process = None


@pytest.fixture(scope="module")
def parent(tmp_path_factory) -> Iterator[Parent]:
    parent = Parent(tmp_path_factory.mktemp("forks"))
    yield parent
    parent.end()


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_pools_of_processes(method, parent):
    function, processes = ("check", 2) if method == "fork" else ("check_results", 1)  # each of the others imports torch
    parent.run(
        f"""
with multiprocessing.get_context("{method}").Pool({processes}) as pool:
    pool.starmap_async({function}, [()] * 3).get(timeout=120)
check_results()
"""
    )


def test_workers_of_a_data_loader(parent):
    parent.run(
        """
class Checks(torch.utils.data.Dataset):
    __len__ = lambda self: 4
    __getitem__ = lambda self, number: check(number)
loader = torch.utils.data.DataLoader(Checks(), num_workers=2, multiprocessing_context="fork", timeout=100)
assert torch.cat(list(loader)).tolist() == [0, 1, 2, 3]
check_results()
"""
    )


def test_forks_of_forks(parent):
    parent.run(
        """
def parent():
    check()
    wait_for(forked(check), forked(check))
    check()
wait_for(forked(parent))
check_results()
"""
    )


def test_derivatives_of_what_was_computed_before_the_fork(parent):
    parent.run(
        """
inputs = [t.clone().requires_grad_() for t in (x, edge_attr, weight)]
first = torch.autograd.grad(layer(inputs[0], edge_index, *inputs[1:]).square().sum(), inputs, create_graph=True)
def second():
    return torch.autograd.grad(sum(g.square().sum() for g in first), inputs, retain_graph=True)
exact = second()
def child():
    assert all(torch.equal(a, b) for a, b in zip(second(), exact, strict=True))
wait_for(forked(child))
"""
    )


def test_other_modes_and_products_in_a_fork(parent):
    """With the matrix products that mix channels, of a library that has threads."""
    parent.run(
        """
from pyg_cgconv import FullyConnectedTensorProduct
irreps = ["8x0e+8x1o"] * 3
paths = [(0, 0, 0, "uvw", True), (1, 1, 0, "uuu", True)]
layers = [TensorProductConv(*irreps, paths, shared_weights=shared) for shared in (False, True)]
product, many = FullyConnectedTensorProduct(*irreps), torch.randn(200, 32)
def every():
    for layer in layers:
        w = torch.ones(layer.weight_numel if layer.shared_weights else (200, layer.weight_numel))
        leaf = x.clone().requires_grad_()
        yield torch.autograd.grad(layer(leaf, edge_index[:, :200], many, w).square().sum(), leaf)[0]
    yield torch.autograd.grad(product(many, many).square().sum(), product.weight)[0]
exact = list(every())
def child():
    for found, expected in zip(every(), exact, strict=True):
        assert (found - expected).norm() < 1e-5 * expected.norm()
wait_for(forked(child))
"""
    )


def test_transforms_in_a_fork(parent):
    parent.run(
        """
def slope(layer):
    f = lambda x: layer(x, edge_index, edge_attr, weight).square().sum()
    return torch.vmap(lambda c: torch.func.jvp(torch.func.grad(f), (x,), (c,))[1])(torch.stack([x, 2 * x]))
exact = slope(reference)
def child():
    assert (slope(layer) - exact).norm() < 1e-4 * exact.norm()
wait_for(forked(child))
"""
    )


def test_while_another_thread_runs_a_kernel(parent):
    parent.run(
        """
from cuda_kernels.cpu import launch
check_results()
held, done = threading.Event(), threading.Event()
def hold():
    with launch._one_at_a_time:
        held.set()
        done.wait()
thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = forked(check)
wait_for(child)
done.set()
thread.join()
check_results()
"""
    )


def test_while_another_thread_compiles(parent):
    """The child compiles, too: kernels of one thread, which its parent had not."""
    parent.run(
        """
def compile_others():
    for channels in range(9, 13):
        other = TensorProductConv(f"{channels}x0e", "0e+1o", "0e+1o")
        other(torch.randn(1, channels), edge_index[:, :0], edge_attr[:0], torch.randn(0, other.weight_numel))
thread = threading.Thread(target=compile_others)
thread.start()
children = []
while thread.is_alive() and len(children) < 4:
    time.sleep(0.1)
    children.append(forked(check))
wait_for(*children)
thread.join()
check_results()
"""
    )
