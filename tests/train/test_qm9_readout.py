import numpy as np
import pytest
import torch
from ase import Atoms, units
from torch_geometric.data import Batch, Data

from datasets.qm9_targets import TARGETS
from train.qm9_readout import READOUT_IRREPS, READOUT_OF_TARGET, PropertyReadout, dipole

SPECIES = [1, 6, 8]
SHIFT, SCALE = [[0.3, -1.0], [0.7, 2.0], [-0.2, 4.0]], [0.5, 3.0]


def molecules():
    generator = torch.Generator().manual_seed(0)
    numbers = ([8, 1, 1], [6, 8, 1, 1, 6], [6])
    return [
        Data(z=torch.tensor(z), pos=3 * torch.randn(len(z), 3, generator=generator, dtype=torch.float64))
        for z in numbers
    ]


def outputs_of(readout, num_atoms):
    width = {"0e": 1, "2x0e": 2, "0e + 1o": 4}[READOUT_IRREPS[readout]]
    return torch.randn(num_atoms, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def value(readout, batch, outputs):
    width = 1 if readout in ("sum", "mean") else 2
    module = PropertyReadout(readout, [row[:width] for row in SHIFT], SCALE[:width])
    return module(outputs, torch.tensor([SPECIES.index(z) for z in batch.z.tolist()]), batch)


def by_hand(readout, molecule, outputs):
    """The documented formula, atom by atom."""
    total, vector = 0.0, np.zeros(3)
    centre_of_mass = Atoms(molecule.z.numpy(), molecule.pos.numpy()).get_center_of_mass()
    for z, r, out in zip(molecule.z.tolist(), molecule.pos.numpy(), outputs.numpy(), strict=True):
        first = SHIFT[SPECIES.index(z)][0] + SCALE[0] * out[0]
        if readout == "sum":
            total += first
        elif readout == "mean":
            total += first / len(molecule.z)
        elif readout == "extent":
            total += first * ((r - centre_of_mass) ** 2).sum() + SHIFT[SPECIES.index(z)][1] + SCALE[1] * out[1]
        else:
            vector += first * r / units.Debye + SCALE[1] * out[1:]
    if readout == "dipole":
        charges = [
            SHIFT[SPECIES.index(z)][0] + SCALE[0] * out
            for z, out in zip(molecule.z.tolist(), outputs[:, 0], strict=True)
        ]
        vector -= np.mean(charges) * molecule.pos.numpy().sum(axis=0) / units.Debye
        total = np.linalg.norm(vector)
    return total


@pytest.mark.parametrize("readout", READOUT_IRREPS)
def test_readout_is_the_documented_formula(readout):
    batch = Batch.from_data_list(molecules())
    outputs = outputs_of(readout, len(batch.z))
    found = value(readout, batch, outputs)
    assert found.dtype == torch.float64
    expected = [by_hand(readout, m, o) for m, o in zip(molecules(), outputs.split([3, 5, 1]), strict=True)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-7)  # two tables of constants


@pytest.mark.parametrize("readout", READOUT_IRREPS)
def test_the_origin_does_not_matter(readout):
    batch, moved = Batch.from_data_list(molecules()), Batch.from_data_list(molecules())
    moved.pos = moved.pos + torch.tensor([7.0, -3.0, 11.0], dtype=torch.float64)
    outputs = outputs_of(readout, len(batch.z))
    torch.testing.assert_close(value(readout, moved, outputs), value(readout, batch, outputs), rtol=1e-10, atol=1e-10)


def test_a_pair_of_charges_has_the_dipole_moment_of_textbooks():
    """One elementary charge moved by 1 Angstrom: 4.803 Debye, towards the positive end."""
    pair = Batch.from_data_list(
        [Data(z=torch.tensor([1, 8]), pos=torch.tensor([[2.0, 1.0, 1.0], [1.0, 1.0, 1.0]], dtype=torch.float64))]
    )
    found = dipole(torch.tensor([1.0, -1.0]).double(), torch.zeros(2, 3).double(), pair)
    np.testing.assert_allclose(found.numpy(), [[4.803, 0.0, 0.0]], atol=5e-4)


def test_a_vanishing_dipole_moment_has_a_finite_gradient():
    """By symmetry that of methane is zero."""
    atom = Batch.from_data_list([Data(z=torch.tensor([6]), pos=torch.zeros(1, 3, dtype=torch.float64))])
    outputs = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    value("dipole", atom, outputs).sum().backward()
    assert outputs.grad.isfinite().all()


def test_every_target_has_a_readout():
    assert set(READOUT_OF_TARGET) == set(TARGETS)
    assert set(READOUT_OF_TARGET.values()) == set(READOUT_IRREPS)
