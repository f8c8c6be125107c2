"""Several types of nodes: the electric field that polarizable charges make at probes, by PyG's HeteroConv.

Charges act on probes, and on each other: they induce dipoles, which act on the probes, too. A probe acts on nothing.
So the graph from charges to probes is bipartite.

    PYTHONPATH=. python examples/hetero.py
"""

import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.loader import DataLoader
from torch_geometric.nn import HeteroConv

from pyg_cgconv import TensorProductConv
from pyg_cgconv.nn import BesselBasis, Linear, RadialNetwork, spherical_harmonics

INDUCES, ACTS = ("charge", "induces", "charge"), ("charge", "acts on", "probe")
FARTHEST = 8.0
HARMONICS = o3.Irreps.spherical_harmonics(2)


def system(charges: int = 5, probes: int = 5) -> HeteroData:
    """Charges and probes near sites of a lattice, and the field at the probes, in units without constants."""
    lattice = 2.0 * torch.cartesian_prod(*[torch.arange(3.0)] * 3)
    sites = lattice[torch.randperm(len(lattice))[: charges + probes]] + 0.2 * torch.randn(charges + probes, 3)
    data, q = HeteroData(), torch.randn(charges, 1)
    data["charge"].q = q
    data["charge"].pos, data["probe"].pos = sites.split([charges, probes])
    among, towards = (data[name].pos[:, None] - data["charge"].pos for name in ("charge", "probe"))
    dipole = (q * among / among.norm(dim=2, keepdim=True).clamp(min=1) ** 3).sum(1)
    r = towards.norm(dim=2, keepdim=True)
    along = (dipole * towards).sum(2, keepdim=True) * towards
    data["probe"].field = (q * towards / r**3 + 3 * along / r**5 - dipole / r**3).sum(1)
    pairs = torch.cartesian_prod(torch.arange(charges), torch.arange(charges)).T
    data[INDUCES].edge_index = pairs[:, pairs[0] != pairs[1]]
    data[ACTS].edge_index = torch.cartesian_prod(torch.arange(charges), torch.arange(probes)).T
    return data


class Field(nn.Module):
    """The field of the charges, and that of the dipoles that they induce."""

    def __init__(self, channels: int = 8):
        super().__init__()
        self.basis, self.channels = BesselBasis(FARTHEST), channels
        induces = TensorProductConv(f"{channels}x0e", HARMONICS, "1o")
        acts = TensorProductConv(f"{channels}x0e", HARMONICS, "1o")
        self.charges = HeteroConv({INDUCES: induces, ACTS: acts})
        self.dipoles = TensorProductConv(f"{channels}x1o", HARMONICS, "1o")
        widths = (conv.weight_numel for conv in (induces, acts, self.dipoles))
        self.radial = nn.ModuleList([RadialNetwork(8, (32, 32), width) for width in widths])
        self.of_charges, self.of_dipoles = Linear(acts.irreps_out, "1o"), Linear(self.dipoles.irreps_out, "1o")

    def forward(self, data: HeteroData) -> Tensor:
        edge_attr, basis = {}, {}
        for relation, edge_index in data.edge_index_dict.items():
            vectors = data[relation[2]].pos[edge_index[1]] - data[relation[0]].pos[edge_index[0]]
            lengths = vectors.norm(dim=1)
            edge_attr[relation] = spherical_harmonics(vectors / lengths[:, None], 2)
            basis[relation] = self.basis(lengths)
        induces, acts, dipoles_act = self.radial
        # Of the probes only the number is read: any tensor with a row for each will do.
        x = {"charge": data["charge"].q.expand(-1, self.channels), "probe": data["probe"].pos}
        weight = {INDUCES: induces(basis[INDUCES]), ACTS: acts(basis[ACTS])}
        out = self.charges(x, data.edge_index_dict, edge_attr_dict=edge_attr, weight_dict=weight)
        # A bipartite graph by itself: a pair of tensors instead of one.
        pair = out["charge"], data["probe"].pos
        from_dipoles = self.dipoles(pair, data[ACTS].edge_index, edge_attr[ACTS], dipoles_act(basis[ACTS]))
        return self.of_charges(out["probe"]) + self.of_dipoles(from_dipoles)


def main() -> tuple[float, float]:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # fastest for small graphs
    network = Field()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    loader = DataLoader([system() for _ in range(1000)], batch_size=50, shuffle=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10 * len(loader))
    for epoch in range(10):
        for batch in loader:
            loss = (network(batch) - batch["probe"].field).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.2e}")

    batch = next(iter(DataLoader([system() for _ in range(200)], batch_size=200)))
    field, rotation = batch["probe"].field, o3.rand_matrix()
    with torch.no_grad():
        predicted = network(batch)
        for name in ("charge", "probe"):
            batch[name].pos = batch[name].pos @ rotation.T
        turned = network(batch)
    error = ((predicted - field).norm() / field.norm()).item()
    equivariance = ((turned - predicted @ rotation.T).norm() / predicted.norm()).item()
    print(f"error of the field at {len(field)} probes of new systems: {error:.1%}")
    print(f"equivariance error: {equivariance:.1e} of the field (float32)")
    assert equivariance < 1e-5
    return error, equivariance


if __name__ == "__main__":
    main()
