"""QM9 with a training loop of your own: atomization energies, from the 5,000 embedded molecules.

PYTHONPATH=. python examples/qm9_loop.py
"""

import torch
from torch import Tensor
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader

from datasets import QM9Sample, ToDtype
from pyg_cgconv import Potential, RadiusGraph

TARGET, CUTOFF = "U0", 4.0


def composition(molecules: QM9Sample, elements: list[int]) -> Tensor:
    """Atoms of each element in each molecule."""
    return torch.stack([(data.z[:, None] == torch.tensor(elements)).sum(0) for data in molecules]).double()


def target(molecules: QM9Sample) -> Tensor:
    return torch.cat([data.y[:, molecules.target_index(TARGET)] for data in molecules])


def main() -> tuple[float, float]:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # fastest for small molecules
    dataset = QM9Sample(transform=ToDtype(torch.float32), pre_transform=RadiusGraph(CUTOFF))
    train, _, test = (dataset[part] for part in dataset.random_split(1000, 0, 200))

    # Energies of molecules are thousands of eV, and what a network has to learn is less than one. So the energies of
    # free atoms and a linear fit of what is left are subtracted, in float64.
    free = dataset.atom_reference(TARGET)
    counts, atoms = composition(train, list(free)), torch.tensor(list(free.values()), dtype=torch.float64)
    fit = torch.linalg.lstsq(counts, (target(train) - counts @ atoms)[:, None]).solution[:, 0]
    shift = dict(zip(free, (atoms + fit).tolist(), strict=True))

    # A potential without forces is a network for any sum over atoms. It adds `shift` in float64.
    network = Potential(list(free), CUTOFF, channels=16, lmax=1, layers=1, shift=shift, scale=0.2, avg_num_neighbors=12)
    column = dataset.target_index(TARGET)
    loader = DataLoader(train, batch_size=10, shuffle=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.02, total_steps=10 * len(loader))
    for epoch in range(10):
        total = 0.0
        for batch in loader:
            errors = network(batch, compute_forces=False)["energy"] - batch.y[:, column]
            loss = errors.abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += errors.detach().abs().sum().item()
        print(f"epoch {epoch + 1}: mean absolute error {1000 * total / len(train):.0f} meV")

    network.eval()
    batch = Batch.from_data_list(list(test))
    with torch.no_grad():
        learnt = network(batch, compute_forces=False)["energy"]
    fitted = composition(test, list(free)) @ (atoms + fit)
    errors = [(guess - target(test)).abs().mean().item() for guess in (learnt, fitted)]
    print(f"{TARGET} of {len(test)} other molecules: {1000 * errors[0]:.0f} meV")
    print(f"from the composition alone: {1000 * errors[1]:.0f} meV")
    return errors[0], errors[1]


if __name__ == "__main__":
    main()
