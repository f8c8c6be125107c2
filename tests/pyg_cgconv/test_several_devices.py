"""Several processes with a device each, and several GPUs of one process."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from tests.pyg_cgconv.test_calls import MAKERS, assert_close, inputs, orders

ROOT = Path(__file__).parents[2]
PROGRAM = """
import copy, sys
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from tests.pyg_cgconv.test_calls import Network, assert_close, inputs

rank, device, file = int(sys.argv[1]), sys.argv[2], sys.argv[3]
if device == "cuda":
    device = f"cuda:{rank}"
    torch.cuda.set_device(rank)
backend = "nccl" if device.startswith("cuda") else "gloo"
distributed.init_process_group(backend, init_method=f"file://{file}", rank=rank, world_size=2)
torch.manual_seed(rank)  # DDP gives all processes the parameters of the first
network = DistributedDataParallel(Network().to(device))
alone = copy.deepcopy(network.module)
graphs = [[t.to(device) for t in inputs(alone.conv, rows)] for rows in (7, 12)]
for step in range(2):
    network.zero_grad()
    network(*graphs[rank]).square().sum().backward()
losses = [alone(*graph).square().sum() / 2 for graph in graphs]
assert_close([p.grad for p in network.parameters()], torch.autograd.grad(sum(losses), alone.parameters()))
distributed.destroy_process_group()
"""
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


def need_gpus(number: int) -> None:
    if torch.cuda.device_count() < number:
        pytest.skip(f"fewer than {number} GPUs")


@pytest.mark.thorough
@pytest.mark.parametrize("device", DEVICES)
def test_ddp_averages_gradients(device, tmp_path):
    if device == "cuda":
        need_gpus(2)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(rank), device, str(tmp_path / "ranks")],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=240)[1] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert [process.returncode for process in ranks] == [0, 0], "\n".join(text[-2000:] for text in said)


@pytest.mark.cuda
@pytest.mark.parametrize("name", MAKERS)
def test_several_gpus_of_one_process(name):
    """Each has its kernels and its stream, whatever is the current device; also from threads at once."""
    need_gpus(2)
    torch.manual_seed(0)
    module = MAKERS[name]()
    given, state = inputs(module), module.state_dict()
    expected, found = orders(module, given), {}

    def compute(number: int) -> None:
        moved = MAKERS[name]().to(f"cuda:{number}")
        moved.load_state_dict(state)
        found[number] = [t.cpu() for t in orders(moved, [t.to(f"cuda:{number}") for t in given])]

    threads = [threading.Thread(target=compute, args=(n,)) for n in range(torch.cuda.device_count())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(threads)
    for results in found.values():
        assert_close(results, expected)
