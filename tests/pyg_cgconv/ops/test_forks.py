"""Processes that are forked from one that has used the kernels: they compute, alone, what their parent does.

Each test is a program in a process of its own, with a time limit: a process that waits for ever fails.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import multiprocessing, os, signal, threading
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
"""
pytestmark = [pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system"), pytest.mark.slow]


def run(body: str, tmp_path: Path) -> None:
    """The program with this body, in a process of its own with two threads."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM + "\n".join("    " + line for line in body.strip().splitlines()))
    environment = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_pools_of_processes(method, tmp_path):
    function, processes = ("check", 2) if method == "fork" else ("check_results", 1)  # each of the others imports torch
    run(
        f"""
check_results()
with multiprocessing.get_context("{method}").Pool({processes}) as pool:
    pool.starmap_async({function}, [()] * 3).get(timeout=120)
check_results()
""",
        tmp_path,
    )


def test_workers_of_a_data_loader(tmp_path):
    run(
        """
check_results()
class Checks(torch.utils.data.Dataset):
    __len__ = lambda self: 4
    __getitem__ = lambda self, number: check(number)
loader = torch.utils.data.DataLoader(Checks(), num_workers=2, multiprocessing_context="fork", timeout=100)
assert torch.cat(list(loader)).tolist() == [0, 1, 2, 3]
check_results()
""",
        tmp_path,
    )


def test_forks_of_forks(tmp_path):
    run(
        """
check_results()
def parent():
    check()
    wait_for(forked(check), forked(check))
    check()
wait_for(forked(parent))
check_results()
""",
        tmp_path,
    )


def test_derivatives_of_what_was_computed_before_the_fork(tmp_path):
    run(
        """
inputs = [t.clone().requires_grad_() for t in (x, edge_attr, weight)]
first = torch.autograd.grad(layer(inputs[0], edge_index, *inputs[1:]).square().sum(), inputs, create_graph=True)
def second():
    return torch.autograd.grad(sum(g.square().sum() for g in first), inputs, retain_graph=True)
exact = second()
def child():
    assert all(torch.equal(a, b) for a, b in zip(second(), exact, strict=True))
wait_for(forked(child))
""",
        tmp_path,
    )


def test_other_modes_and_products_in_a_fork(tmp_path):
    """With the matrix products that mix channels, of a library that has threads."""
    run(
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
""",
        tmp_path,
    )


def test_transforms_in_a_fork(tmp_path):
    run(
        """
check_results()
def slope(layer):
    f = lambda x: layer(x, edge_index, edge_attr, weight).square().sum()
    return torch.vmap(lambda c: torch.func.jvp(torch.func.grad(f), (x,), (c,))[1])(torch.stack([x, 2 * x]))
exact = slope(reference)
def child():
    assert (slope(layer) - exact).norm() < 1e-4 * exact.norm()
wait_for(forked(child))
""",
        tmp_path,
    )


def test_while_another_thread_runs_a_kernel(tmp_path):
    run(
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
""",
        tmp_path,
    )


def test_while_another_thread_compiles(tmp_path):
    """The child compiles, too: kernels of one thread, which its parent had not."""
    run(
        """
import time
check_results()
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
""",
        tmp_path,
    )
