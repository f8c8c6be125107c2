import numpy as np
import pytest
import torch
from ase import Atoms
from torch_geometric.data import Data

from pyg_cgconv import RadiusGraph
from train.qm9_statistics import collect_property_statistics


def molecules(count=40):
    rng = np.random.default_rng(0)
    connect = RadiusGraph(3.0)
    sizes = rng.integers(2, 9, size=count)
    return [
        connect(Data(z=torch.tensor(rng.choice([1, 6, 9], size=n)), pos=torch.tensor(rng.normal(scale=2, size=(n, 3)))))
        for n in sizes
    ]


def counts(molecules):
    return torch.stack([torch.stack([(m.z == z).sum() for z in (1, 6, 9)]) for m in molecules]).double()


def noise(count, scale):
    return scale * torch.randn(count, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_atoms_in_molecules_are_found():
    frames = molecules()
    target = counts(frames) @ torch.tensor([-13.0, -1030.0, -2715.0], dtype=torch.float64) + noise(40, 0.1)
    found = collect_property_statistics(frames, target, "sum")
    assert found.species == (1, 6, 9)
    np.testing.assert_allclose(np.array(found.shift)[:, 0], [-13.0, -1030.0, -2715.0], atol=0.1)
    assert 0.05 < found.spread < 0.15
    mean_size = np.mean([m.num_nodes for m in frames])
    assert found.scale == pytest.approx((found.spread / np.sqrt(mean_size),))
    assert found.num_neighbors == pytest.approx(sum(m.num_edges for m in frames) / sum(m.num_nodes for m in frames))


def test_means_over_atoms_are_found():
    frames = molecules()
    parts = counts(frames) / counts(frames).sum(dim=1, keepdim=True)
    target = parts @ torch.tensor([1.0, -6.0, 3.0], dtype=torch.float64) + noise(40, 0.01)
    np.testing.assert_allclose(
        np.array(collect_property_statistics(frames, target, "mean").shift)[:, 0], [1.0, -6.0, 3.0], atol=0.05
    )


def test_electrons_and_their_spread_around_the_atom_are_found():
    frames = molecules()
    target = []
    for frame in frames:
        atoms = Atoms(frame.z.numpy(), frame.pos.numpy())
        squares = ((atoms.positions - atoms.get_center_of_mass()) ** 2).sum(axis=1)
        electrons = np.array([{1: 3.0, 6: 22.0, 9: 33.0}[z] for z in atoms.numbers])
        around = np.array([{1: 4.0, 6: 10.0, 9: 9.0}[z] for z in atoms.numbers])
        target.append((electrons * squares + around).sum())
    found = collect_property_statistics(frames, torch.tensor(target) + noise(40, 0.01), "extent")
    np.testing.assert_allclose(found.shift, [[3.0, 4.0], [22.0, 10.0], [33.0, 9.0]], atol=0.05)


def test_a_dipole_moment_starts_from_nothing():
    frames = molecules()
    target = noise(40, 2.0).abs()
    found = collect_property_statistics(frames, target, "dipole")
    assert found.shift == ((0.0, 0.0),) * 3
    assert found.spread == pytest.approx(target.square().mean().sqrt().item())


def test_nothing_to_learn_is_named():
    frames = molecules(3)
    with pytest.raises(ValueError, match="the 3 training molecules leave nothing to learn"):
        collect_property_statistics(frames, torch.zeros(3, dtype=torch.float64), "sum")
