"""Kernels compiled ahead, in processes of their own: a later one compiles none, without that it compiles some."""

import os
import subprocess
import sys

import pytest
import torch

from pyg_cgconv import Potential, compile
from pyg_cgconv.compile import main
from pyg_cgconv.nn import GATE_GAINS

SCRIPT = """
import sys
import torch
from numba.core import event
from cuda_kernels import cache
from pyg_cgconv import Potential, RadiusGraph
from torch_geometric.data import Data

path, training, threads, gpu = sys.argv[1], sys.argv[2] == "training", int(sys.argv[3]), sys.argv[4] == "gpu"
torch.set_num_threads(threads)
stored = []
store = cache.store
cache.store = lambda name, content: (stored.append(name), store(name, content))

if gpu:  # the plans that a GPU would run are made, too, by a driver that loads nothing
    from cuda_kernels.cuda import launch
    from pyg_cgconv.nn import _linear
    from pyg_cgconv.ops import _contract, _cuda

    launch.compute_capability = lambda device: (9, 0)
    launch.Kernel = lambda binary: binary
    _cuda._part = lambda problem, part, device: (
        _cuda.LinearPart(part, _cuda.linear.table(problem, part), problem.dtype, device), []
    )
    _linear._fused_devices = ("cpu",)
    run, planned = _contract.run, set()

    def run_and_plan(problem, contraction, operands, graph, deterministic):
        if (problem, contraction) not in planned:
            planned.add((problem, contraction))
            _cuda.plan_here(problem, contraction, deterministic, 0)
        return run(problem, contraction, operands, graph, deterministic)

    _contract.run = run_and_plan

torch.manual_seed(0)
count = 8 if threads == 1 else 4000
edge = (count * 20) ** (1 / 3)
z = torch.tensor([1, 8]).repeat(count // 2)
data = Data(z=z, pos=edge * torch.rand(count, 3).double(), cell=edge * torch.eye(3).double()[None])
data = RadiusGraph(3.0)(data)
potential = Potential.load(path)
with event.install_recorder("numba:compile") as compilations:
    if training:
        out = potential.train()(data, compute_stress=True)
        (out["energy"].square().sum() + out["forces"].square().sum() + out["stress"].square().sum()).backward()
    else:
        out = potential(data, compute_stress=True)
        potential.requires_grad_(False)(data, compute_stress=False)
started = [1 for _, each in compilations.buffer if each.is_start]
print(len(stored), len(started))
"""


@pytest.fixture
def file(tmp_path):
    size = dict(channels=4, lmax=1, layers=2, num_radial=3, radial_hidden=(4,), avg_num_neighbors=4.0)
    Potential(["H", "O"], 3.0, products=True, dtype="float32", **size).save(tmp_path / "potential.pt")
    return tmp_path / "potential.pt"


@pytest.fixture
def compiled(file, tmp_path):
    """Counts what a new process stores and compiles, after the command with these options."""
    folder = tmp_path / "kernels"
    environment = {**os.environ, "PYG_CGCONV_CACHE": str(folder), "OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2"}

    def run(command):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    def count(options, kind="inference", threads=1, gpu=False):
        if options is not None:
            added = run([sys.executable, "-m", "pyg_cgconv.compile", str(file), *options])[0]
            kept = len(list(folder.iterdir()))
            assert 0 < int(added) < kept if gpu else int(added) == kept
        script = [sys.executable, "-c", SCRIPT, str(file), kind, str(threads), "gpu" if gpu else "cpu"]
        return tuple(map(int, run(script)[-2:]))

    return count


@pytest.mark.parametrize("training", [False, True])
def test_gates_have_the_dtype_that_the_potential_was_converted_to(monkeypatch, training):
    compiled = []
    for name in ("_run_all", "compile_for_gpu", "_kept"):
        monkeypatch.setattr(compile, name, lambda *arguments: {"a file"})
    monkeypatch.setattr(compile, "compile_gates", lambda *arguments: compiled.append(arguments))
    potential = Potential(["H"], 3.0, channels=2, lmax=1, layers=1, dtype="float32").double()
    compile.compile_kernels(potential, capabilities=[(9, 0)], training=training)
    assert compiled == [(GATE_GAINS, "float64", (9, 0), training)]


@pytest.mark.thorough
def test_without_it_kernels_are_compiled(compiled):
    stored, started = compiled(None)
    assert started >= stored > 5


@pytest.mark.thorough
def test_the_first_call_compiles_nothing(compiled):
    """With little work and one thread, and with much work and two: these are different kernels."""
    assert compiled(["--device", "cpu"]) == (0, 0)
    assert compiled(None, threads=2) == (0, 0)


@pytest.mark.thorough
def test_a_training_step_compiles_nothing(compiled):
    assert compiled(["--device", "cpu", "--training"], "training") == (0, 0)
    assert compiled(None, "inference") == (0, 0)


@pytest.mark.thorough
def test_for_a_gpu_that_is_not_here(compiled):
    """The plans of a GPU are made there, and the numbers by a CPU, of which the command has kept the kernels, too."""
    assert compiled(["--for", "sm_90", "--training"], "training", gpu=True) == (0, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--for", "hopper"], "expected a compute capability such as sm_90 or 9.0, got 'hopper'"),
        (["--for", "sm_90", "--device", "cpu"], "--for: is of GPUs"),
        (["--for", "sm_70"], "compute capability 7.0"),
        (["--dtype", "float16"], "float16"),
    ],
)
def test_wrong_options_are_named(file, capsys, options, message):
    with pytest.raises(SystemExit):
        main([str(file), *options])
    assert message in capsys.readouterr().err


def test_a_missing_gpu_and_a_missing_file_are_named(file, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        main([str(file), "--device", "cuda"])
    assert "there is no GPU here; say for which one by --for" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(file.with_name("absent.pt"))])
    assert "absent.pt': no such file or folder" in capsys.readouterr().err
