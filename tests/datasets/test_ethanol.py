"""The embedded set against mechanics, chemistry and the reference calculations of ethanol_reference.json."""

import json
from pathlib import Path

import pytest
import torch
from ase.units import kB
from torch_geometric.loader import DataLoader

from datasets import EthanolPBE
from pyg_cgconv.potential import RadiusGraph

REFERENCE = json.loads((Path(__file__).parent / "ethanol_reference.json").read_text())

# eV/Angstrom. The gradient contains the motion of the integration grid, so that only rounding is left: 9 atoms at 1e-8.
NET_FORCE = 1e-7
# eV, largest and root mean square. The grid does not turn with the molecule, so what is left of the torque tells how
# dense it is. Measured 1.0e-3 and 1.4e-4; the frame with the largest has force errors up to 6e-4 eV/Angstrom.
NET_TORQUE = 1.5e-3
NET_TORQUE_RMS = 2e-4


@pytest.fixture(scope="module")
def dataset():
    return EthanolPBE()


@pytest.fixture(scope="module")
def frames(dataset):
    """z (9,), pos (frames, 9, 3), energy (frames,), forces (frames, 9, 3)."""
    batch = next(iter(DataLoader(dataset, batch_size=len(dataset))))
    assert (batch.z.view(-1, 9) == dataset[0].z).all()
    return dataset[0].z, batch.pos.view(-1, 9, 3), batch.energy, batch.forces.view(-1, 9, 3)


def test_thousand_distinct_frames(dataset, frames):
    assert len(dataset) == 1000
    distances = torch.cdist(frames[1].flatten(1), frames[1].flatten(1))
    distances.fill_diagonal_(torch.inf)
    assert distances.min() > 0.1


def test_item(dataset):
    item = dataset[0]
    assert item.z.tolist() == [6, 6, 8, 1, 1, 1, 1, 1, 1]
    assert item.pos.shape == item.forces.shape == (9, 3)
    assert item.energy.shape == (1,)
    assert item.pos.dtype == item.forces.dtype == item.energy.dtype == torch.float64


def test_forces_sum_to_zero(frames):
    assert frames[3].sum(dim=1).abs().max() < NET_FORCE


def test_torques_sum_to_zero(frames):
    _, pos, _, forces = frames
    torque = torch.linalg.cross(pos, forces).sum(dim=1)
    assert torque.abs().max() < NET_TORQUE
    assert torque.square().mean().sqrt() < NET_TORQUE_RMS


def test_every_frame_is_ethanol(frames):
    """Each atom keeps the neighbours of CH3-CH2-OH: bonds are stretched at 500 K, not broken."""
    _, pos, _, _ = frames
    distance = torch.cdist(pos, pos)
    bonds = {(0, 1): 1.52, (1, 2): 1.43, (2, 3): 0.97, (1, 4): 1.1, (1, 5): 1.1, (0, 6): 1.1, (0, 7): 1.1, (0, 8): 1.1}
    lengths = torch.stack([distance[:, i, j] for i, j in bonds], dim=1)
    equilibrium = torch.tensor(list(bonds.values()))
    assert ((lengths / equilibrium - 1).abs() < 0.25).all()
    assert torch.allclose(lengths.mean(dim=0), equilibrium.double(), atol=0.03)


def test_energies_are_spread_as_at_500_kelvin(frames):
    """A harmonic molecule with 21 vibrations has potential energies of standard deviation k_B T sqrt(21 / 2)."""
    _, _, energy, _ = frames
    assert energy.std().item() == pytest.approx(kB * 500 * (21 / 2) ** 0.5, rel=0.2)
    assert (energy - energy.mean()).abs().max() < 1  # eV: no outlier


@pytest.mark.parametrize("calculation", REFERENCE["calculations"], ids=lambda calculation: calculation["name"])
@pytest.mark.parametrize("number", range(len(REFERENCE["positions"])))
def test_reference(frames, calculation, number):
    _, pos, energy, forces = frames
    position = torch.tensor(REFERENCE["positions"][number], dtype=torch.float64)
    (frame,) = torch.nonzero((pos == position).flatten(1).all(dim=1)).flatten().tolist()
    energy_error = energy[frame].item() - calculation["energies"][number]
    force_errors = (forces[frame] - torch.tensor(calculation["forces"][number], dtype=torch.float64)).abs()
    assert abs(energy_error) < calculation["tolerance"]["energy"]
    assert force_errors.max() < calculation["tolerance"]["largest force error"]
    assert force_errors.mean() < calculation["tolerance"]["mean force error"]


def test_neighbors():
    dataset = EthanolPBE(pre_transform=RadiusGraph(5.0), pre_filter=lambda frame: frame.energy < -4209.8)
    assert 0 < len(dataset) < 1000
    assert dataset[0].edge_index.shape == (2, 72)  # every pair of nine atoms: ethanol is smaller than 5 Angstrom
