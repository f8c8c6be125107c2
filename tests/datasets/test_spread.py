"""What statistics say, against counting by hand and against ASE's neighbour lists."""

import json

import numpy as np
import pytest
import torch
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT
from ase.io import write
from ase.neighborlist import neighbor_list
from torch_geometric.data import Data

from datasets import AtomsFile, EthanolPBE, QM9Sample, histograms, statistics

CUTOFF = 3.5


@pytest.fixture
def structures(tmp_path):
    """A crystal and a slab, as ASE's atoms and as a data set."""
    atoms = [bulk("Cu", cubic=True) * (1, 1, 2), fcc111("Al", (2, 2, 3), vacuum=6.0)]
    atoms[0].symbols[0] = "Au"
    for number, each in enumerate(atoms):
        each.rattle(0.1, seed=number)
        each.calc = EMT()
        each.get_forces(), each.get_stress()
    write(tmp_path / "structures.xyz", atoms)
    return atoms, AtomsFile(tmp_path / "structures.xyz")


def test_counts(structures):
    _, dataset = structures
    found = dataset.statistics()
    assert (found.structures, found.periodic, found.atoms, found.smallest, found.largest) == (2, 2, 20, 8, 12)
    assert list(found.elements.items()) == [("Al", 12), ("Cu", 7), ("Au", 1)]
    assert found.labels == {"energy": 2, "forces": 2, "stress": 2}
    assert not any("neighbours" in name for name in found.quantities)


def test_spreads(structures):
    atoms, dataset = structures
    found = dataset.statistics(CUTOFF).quantities
    energies = np.array([each.get_potential_energy() / len(each) for each in atoms])
    forces = np.concatenate([each.get_forces() for each in atoms])
    stresses = np.array([each.get_stress(voigt=False) for each in atoms])
    counts = np.concatenate([np.bincount(neighbor_list("i", each, CUTOFF), minlength=len(each)) for each in atoms])
    expected = {
        "energy / atoms": (energies, "eV"),
        "force component": (forces.flatten(), "eV/Angstrom"),
        "force on an atom": (np.linalg.norm(forces, axis=1), "eV/Angstrom"),
        "stress component": (stresses.flatten(), "eV/Angstrom^3"),
        "volume / atoms": (np.array([atoms[0].cell.volume / 8]), "Angstrom^3"),
        "neighbours within 3.5 A": (counts, ""),
    }
    assert set(found) == set(expected)
    for name, (values, unit) in expected.items():
        spread = found[name]
        numbers = [values.min(), values.max(), values.mean(), values.std(), np.sqrt((values**2).mean())]
        assert (spread.unit, spread.count) == (unit, values.size)
        np.testing.assert_allclose(
            [spread.min, spread.max, spread.mean, spread.std, spread.rms], numbers, rtol=1e-6, atol=1e-7, err_msg=name
        )


def test_a_selection_and_the_properties_of_qm9():
    dataset = QM9Sample()
    found = dataset[:50].statistics()
    gap = dataset.y[:50, dataset.target_index("gap")]
    assert found.structures == 50
    assert found.quantities["gap"].unit == "eV"
    assert found.quantities["gap"].mean == pytest.approx(gap.mean().item())
    assert found.quantities["U0"].min == pytest.approx(dataset.y[:50, dataset.target_index("U0")].min().item())


def test_nan_is_no_label():
    one = Data(z=torch.tensor([1]), pos=torch.zeros(1, 3), energy=torch.tensor([-1.0]), stress=torch.ones(1, 3, 3))
    one.stress[:] = torch.nan
    other = Data(z=torch.tensor([1, 1]), pos=torch.eye(3)[:2], energy=torch.tensor([torch.nan]))
    found = statistics([one, other])
    assert found.labels == {"energy": 1}
    assert found.quantities["energy / atoms"].count == 1
    assert "stress component" not in found.quantities


def test_forces_of_which_some_are_nan():
    data = Data(z=torch.tensor([1, 1]), pos=torch.eye(3)[:2], forces=torch.tensor([[1.0, 2, 2], [torch.nan] * 3]))
    assert statistics([data]).quantities["force on an atom"].max == 3
    data.forces[0, 0] = torch.nan
    found = statistics([data])
    assert found.quantities["force component"].count == 2
    assert "force on an atom" not in found.quantities


def test_a_lonely_atom_has_no_neighbours():
    lonely = Data(z=torch.tensor([1]), pos=torch.zeros(1, 3))
    assert statistics([lonely], cutoff=2.0).quantities["neighbours within 2 A"].max == 0


def test_whole_numbers_have_bins_of_their_own():
    counts = np.histogram([3.0, 3.0, 5.0], bins=histograms.bins_of(np.array([3.0, 3.0, 5.0])))[0]
    assert counts.tolist() == [2, 0, 1]
    assert histograms.bins_of(np.array([0.5, 3.0])) == histograms.BINS


def test_text_and_json():
    found = EthanolPBE()[:3].statistics(4.0)
    assert "H 18, C 6, O 3" in str(found)
    assert "energy of 3, forces of 3" in str(found)
    again = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert again["elements"] == {"H": 18, "C": 6, "O": 3}
    assert again["quantities"]["force component"]["rms"] == found.quantities["force component"].rms


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="structures: expected one or more, got none"):
        statistics([])
    with pytest.raises(ValueError, match="cutoff: expected a positive number of Angstrom, got -1"):
        EthanolPBE().statistics(-1)
    with pytest.raises(TypeError, match="structures: expected torch_geometric Data, got str as number 0"):
        statistics("EthanolPBE")
    with pytest.raises(ValueError, match="number 0 has no `z`"):
        statistics([Data(pos=torch.zeros(1, 3))])
