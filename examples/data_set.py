"""Reading a data set, looking at it, batching it.

PYTHONPATH=. python examples/data_set.py [PLOT.png]
"""

import sys

import matplotlib
import torch
from torch_geometric.loader import DataLoader

from datasets import EthanolPBE
from pyg_cgconv import RadiusGraph

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main(plot: str = "ethanol.png") -> None:
    # Published MD17 or rMD17 files are read in the same way: datasets.MD17(root, molecule="aspirin").
    dataset = EthanolPBE(pre_transform=RadiusGraph(cutoff=4.0))
    print(dataset, dataset[0], sep="\n")

    train, validation, test = dataset.random_split(
        len(dataset) * 8 // 10, len(dataset) // 10, len(dataset) // 10, seed=0
    )
    print(f"{len(train)} frames to train, {len(validation)} to validate, {len(test)} to test")
    for batch in DataLoader(dataset[train], batch_size=16, shuffle=True):
        edges_an_atom = batch.num_edges / batch.num_nodes
        print(f"{batch.num_graphs} molecules a batch, {batch.num_nodes} atoms, {edges_an_atom:.1f} neighbours an atom")
        assert (batch.edge_index[1].diff() >= 0).all(), "edges come sorted by target: the convolution need not sort"
        break

    energy = torch.cat([data.energy for data in dataset])
    forces = torch.cat([data.forces for data in dataset])
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    left.hist((energy - energy.mean()).numpy(), bins=30)
    left.set(xlabel="energy from the mean (eV)", ylabel="frames", title=f"{len(dataset)} frames of ethanol at 500 K")
    names = {1: "H", 6: "C", 8: "O"}
    atoms = torch.cat([data.z for data in dataset])
    for z in sorted(names):
        right.hist(forces[atoms == z].norm(dim=1).numpy(), bins=40, histtype="step", density=True, label=names[z])
    right.set(xlabel="force (eV/Å)", ylabel="density", title="forces by element")
    right.legend()
    figure.savefig(plot, dpi=150)
    print("plot:", plot)


if __name__ == "__main__":
    main(*sys.argv[1:])
