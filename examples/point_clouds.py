"""A task that is not chemistry: telling shapes apart from noisy points, however they are turned.

Left- and right-handed screws are mirror images. So the network has a pseudoscalar (0o) for them: a number that changes
its sign in a mirror. It sees no turned or mirrored shape in training.

    PYTHONPATH=. python examples/point_clouds.py
"""

import torch
from e3nn import o3
from e3nn.nn import BatchNorm
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import global_mean_pool

from pyg_cgconv import RadiusGraph, TensorProductConv
from pyg_cgconv.nn import BesselBasis, Gate, Linear, PolynomialCutoff, RadialNetwork, spherical_harmonics

SHAPES = ("ring", "ball", "left screw", "right screw")
CUTOFF, LMAX = 1.5, 1


def cloud(shape: int, points: int = 24) -> Data:
    """Noisy points of a shape, joined where they are near each other."""
    t = torch.linspace(0, 2 * torch.pi, points)
    if SHAPES[shape] == "ball":
        pos = nn.functional.normalize(torch.randn(points, 3), dim=1)
    elif SHAPES[shape] == "ring":
        pos = torch.stack([t.cos(), t.sin(), torch.zeros(points)], dim=1)
    else:
        hand = 1 if SHAPES[shape] == "right screw" else -1
        pos = torch.stack([(1.5 * t).cos(), hand * (1.5 * t).sin(), 0.7 * t], dim=1)
    return RadiusGraph(CUTOFF)(Data(pos=pos + 0.05 * torch.randn(points, 3), y=torch.tensor([shape])))


class Classifier(nn.Module):
    """Rounds of convolution, linear map, gate and norm; then one logit for each shape."""

    def __init__(self, hidden: str = "16x0e + 8x0o + 8x1o + 8x1e", rounds: int = 3):
        super().__init__()
        self.basis, self.envelope = BesselBasis(CUTOFF), PolynomialCutoff(CUTOFF)
        self.convolutions, self.radial = nn.ModuleList(), nn.ModuleList()
        self.linear, self.gates, self.norms = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        irreps = o3.Irreps("1x0e")
        for _ in range(rounds):
            gate = Gate(hidden)
            conv = TensorProductConv(irreps, o3.Irreps.spherical_harmonics(LMAX), gate.irreps_in, aggr="mean")
            self.convolutions.append(conv)
            self.radial.append(RadialNetwork(8, (32,), conv.weight_numel))
            self.linear.append(Linear(conv.irreps_out, gate.irreps_in))
            self.gates.append(gate)
            self.norms.append(BatchNorm(gate.irreps_out))  # e3nn's: features are in its layout
            irreps = gate.irreps_out
        self.readout = Linear(irreps, "3x0e + 1x0o")

    def forward(self, data: Batch) -> Tensor:
        source, target = data.edge_index
        vectors = data.pos[source] - data.pos[target]
        lengths = vectors.norm(dim=1)
        edge_attr = spherical_harmonics(vectors / lengths[:, None], LMAX)
        radial = self.basis(lengths) * self.envelope(lengths)[:, None]
        x = torch.ones(data.num_nodes, 1)
        for conv, weights, linear, gate, norm in zip(
            self.convolutions, self.radial, self.linear, self.gates, self.norms, strict=True
        ):
            x = norm(gate(linear(conv(x, data.edge_index, edge_attr, weights(radial)))))
        ring, ball, screw, hand = global_mean_pool(self.readout(x), data.batch).unbind(dim=1)
        return torch.stack([ring, ball, screw - hand, screw + hand], dim=1)


def main() -> tuple[float, float]:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # fastest for small graphs
    network = Classifier()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    loader = DataLoader([cloud(n % 4) for n in range(160)], batch_size=16, shuffle=True)
    for epoch in range(12):
        for batch in loader:
            loss = nn.functional.cross_entropy(network(batch), batch.y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")

    network.eval()
    batch = Batch.from_data_list([cloud(n % 4) for n in range(200)])
    with torch.no_grad():
        logits = network(batch)
        batch.pos = batch.pos @ o3.rand_matrix().T
        turned = network(batch)
        batch.pos = -batch.pos
        mirrored = network(batch)
    accuracy = (turned.argmax(dim=1) == batch.y).float().mean().item()
    swapped = logits[:, [0, 1, 3, 2]]
    error = (torch.stack([turned - logits, mirrored - swapped]).norm() / logits.norm()).item()
    print(f"{accuracy:.0%} of {len(batch.y)} turned shapes are told apart, and a mirror swaps the two screws")
    print(f"equivariance error: {error:.1e} of the logits (float32)")
    assert error < 1e-4
    return accuracy, error


if __name__ == "__main__":
    main()
