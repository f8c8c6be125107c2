"""The layers inside a network of your own: dipole-like vectors of a batch of molecules, and how exactly they turn with
them.

    PYTHONPATH=. python examples/own_network.py
"""

import torch
from e3nn import o3
from torch import nn
from torch_geometric.data import Batch
from torch_geometric.nn import global_add_pool

from datasets import EthanolPBE
from pyg_cgconv import RadiusGraph, TensorProductConv
from pyg_cgconv.nn import BesselBasis, Gate, Linear, PolynomialCutoff, RadialNetwork, spherical_harmonics

CUTOFF = 4.0


class VectorNetwork(nn.Module):
    """Two convolutions: species -> scalars and vectors on the atoms -> one vector a molecule."""

    def __init__(self, channels: int = 16, num_basis: int = 8, lmax: int = 2):
        super().__init__()
        self.lmax = lmax
        self.basis, self.envelope = BesselBasis(CUTOFF, num_basis), PolynomialCutoff(CUTOFF)
        self.species = nn.Embedding(10, channels)
        gate = Gate(f"{channels}x0e + {channels}x1o")
        self.gates = nn.ModuleList([gate, nn.Identity()])
        self.convolutions, self.radial, self.linear = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for irreps_in, irreps_out in ((f"{channels}x0e", gate.irreps_in), (gate.irreps_out, "1x1o")):
            convolution = TensorProductConv(irreps_in, o3.Irreps.spherical_harmonics(lmax), irreps_out)
            self.convolutions.append(convolution)
            self.radial.append(RadialNetwork(num_basis, (32,), convolution.weight_numel))
            self.linear.append(Linear(convolution.irreps_out, irreps_out))

    def forward(self, data: Batch) -> torch.Tensor:
        source, target = data.edge_index
        vectors = data.pos[source] - data.pos[target]
        lengths = vectors.norm(dim=1)
        edge_attr = spherical_harmonics(vectors / lengths[:, None], self.lmax)
        basis = self.basis(lengths) * self.envelope(lengths)[:, None]
        x = self.species(data.z)
        for convolution, weights, linear, gate in zip(
            self.convolutions, self.radial, self.linear, self.gates, strict=True
        ):
            x = gate(linear(convolution(x, data.edge_index, edge_attr, weights(basis))))
        return global_add_pool(x, data.batch)


def main() -> float:
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dataset = EthanolPBE(pre_transform=RadiusGraph(CUTOFF))
    batch = Batch.from_data_list([dataset[n] for n in range(8)]).to(device)
    batch.pos = batch.pos.float()
    network = VectorNetwork().to(device)

    vectors = network(batch)
    rotation = o3.rand_matrix().to(device)
    batch.pos = batch.pos @ rotation.T
    error = (network(batch) - vectors @ rotation.T).norm() / vectors.norm()

    print(network.convolutions[1])
    print(f"{batch.num_graphs} molecules, {batch.num_nodes} atoms, {batch.num_edges} edges on {device}")
    print("vectors of the first molecules:", vectors[:2].tolist())
    print(f"equivariance error: {error:.1e} of their length (float32)")
    return error.item()


if __name__ == "__main__":
    main()
