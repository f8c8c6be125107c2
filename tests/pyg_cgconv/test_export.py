"""Programs that leave the process: what torch.export and AOTInductor save works where pyg_cgconv is only imported."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from pyg_cgconv.nn import (
    FullyConnectedTensorProduct,
    Linear,
    NodeProducts,
    RadialNetwork,
    TensorProductConv,
    spherical_harmonics,
)

LOAD = {
    "export": "torch.export.load(path).module()",
    "aoti": "torch._inductor.aoti_load_package(path)",
}


class Network(nn.Module):
    """Energies and forces of atoms: convolutions, products, a linear map, and a derivative."""

    def __init__(self):
        super().__init__()
        self.conv = TensorProductConv("4x0e", "0e+1o", "0e+1o")
        mixture = [(0, 0, 0, "uvw", True), (1, 0, 1, "uvu", True)]
        self.mixing = TensorProductConv(self.conv.irreps_out, "0e", "4x0e+4x1o", mixture)
        self.full = FullyConnectedTensorProduct("4x0e+4x1o", "4x0e+4x1o", "1x0e")
        weights = self.conv.weight_numel, self.mixing.weight_numel
        self.radial, self.radial_mixing = (RadialNetwork(1, (4,), n) for n in weights)
        self.products = NodeProducts(self.conv.irreps_out, 4, "4x0e+4x1o")
        self.linear = Linear("4x0e+4x1o", "1x0e")

    def energy(self, positions: Tensor, edge_index: Tensor) -> Tensor:
        source, target = edge_index
        vectors = positions[source] - positions[target]
        distance = vectors.square().sum(-1, keepdim=True).sqrt()
        x = positions.new_ones(positions.shape[0], 4)
        sh = spherical_harmonics(vectors / distance, 1)
        x = self.conv(x, edge_index, sh, self.radial(distance))
        mixed = self.mixing(x, edge_index, sh[:, :1], self.radial_mixing(distance))
        return (self.linear(self.products(x)) + self.full(mixed, mixed)).sum()

    def forward(self, positions: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        positions = positions.detach().requires_grad_()
        energy = self.energy(positions, edge_index)
        (slope,) = torch.autograd.grad(energy, positions)
        return energy.detach(), -slope


def atoms(nodes: int, edges: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(nodes)
    source = torch.randint(nodes, (edges,), generator=generator)
    step = torch.randint(1, nodes, (edges,), generator=generator)
    return torch.randn(nodes, 3, generator=generator), torch.stack([source, (source + step) % nodes])


def exported(network: Network) -> torch.export.ExportedProgram:
    """The network's program with its derivative, for any number of atoms and edges."""
    arguments = atoms(7, 20)
    graph = make_fx(network, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*arguments)
    nodes, edges = torch.export.Dim("nodes", min=3), torch.export.Dim("edges", min=3)
    return torch.export.export(graph, arguments, dynamic_shapes=({0: nodes}, {1: edges}))


@pytest.fixture(scope="module")
def programs() -> tuple[Network, torch.export.ExportedProgram]:
    torch.manual_seed(0)
    network = Network()
    return network, exported(network)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", LOAD)
def test_programs_work_in_a_fresh_process(kind, programs, tmp_path, monkeypatch):
    if kind == "aoti" and not shutil.which("g++"):
        pytest.skip("AOTInductor needs a C++ compiler")
    if kind == "aoti" and torch.__version__ < (2, 13):
        pytest.skip("packages of PyTorch 2.11 were seen to crash where they call operations in Python")
    (network, program), path = programs, str(tmp_path / "program.pt2")
    if kind == "export":
        torch.export.save(program, path)
    else:
        # The wrapper's C++ is long, and runs for a moment.
        monkeypatch.setattr(torch._inductor.config.aot_inductor, "compile_wrapper_opt_level", "O0")
        torch._inductor.aoti_compile_and_package(program, package_path=path)
    arguments = atoms(11, 40)
    torch.save((arguments, network(*arguments)), tmp_path / "expected.pt")
    script = f"""
import sys, torch
import pyg_cgconv
path, expected = sys.argv[1:]
arguments, (energy, forces) = torch.load(expected)
found = {LOAD[kind]}(*arguments)
torch.testing.assert_close(found[0], energy)
torch.testing.assert_close(found[1], forces)
"""
    arguments = [sys.executable, "-c", script, path, str(tmp_path / "expected.pt")]
    subprocess.run(arguments, check=True, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])})
