"""Structures as ASE's atoms: what a file held comes back, to the last digit."""

import numpy as np
import pytest
import torch
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.io import read, write
from torch_geometric.data import Batch, Data

from datasets import AtomsFile, EthanolPBE, QM9Sample, to_ase
from pyg_cgconv import RadiusGraph


def labelled(atoms):
    atoms.rattle(0.05, seed=1)
    atoms.calc = EMT()
    atoms.get_forces()
    if atoms.pbc.all():
        atoms.get_stress()
    return atoms


@pytest.fixture
def files(tmp_path):
    """A crystal, and a slab with a molecule, as ASE writes them."""
    crystal = bulk("Cu", cubic=True) * (2, 1, 1)
    crystal.set_cell(crystal.cell.array + np.diag([0.1, -0.05], 1), scale_atoms=True)
    write(tmp_path / "crystal.xyz", labelled(crystal))
    write(tmp_path / "others.xyz", [labelled(fcc111("Al", (2, 2, 2), vacuum=5.0)), labelled(molecule("CH3CH2OH"))])
    return tmp_path


def test_a_crystal_is_what_ase_reads(files):
    expected = read(files / "crystal.xyz")
    (found,) = AtomsFile(files / "crystal.xyz", pre_transform=RadiusGraph(3.0)).to_ase()
    assert (found.numbers == expected.numbers).all()
    assert (found.positions == expected.positions).all()
    assert (found.cell.array == expected.cell.array).all()
    assert found.pbc.all()
    assert found.get_potential_energy() == expected.get_potential_energy()
    assert (found.get_forces() == expected.get_forces()).all()
    assert np.abs(found.get_stress() - expected.get_stress()).max() < 1e-15
    assert np.ptp(expected.get_stress()) > 1e-3  # so that the order of components is seen
    assert found.info == {}
    assert set(found.arrays) == {"numbers", "positions"}  # no edges


def test_what_is_written_again_is_read_again(files):
    dataset = AtomsFile(files / "others.xyz", labels=["energy", "forces"])
    write(files / "again.xyz", dataset.to_ase())
    again = AtomsFile(files / "again.xyz")
    for one, other in zip(dataset, again, strict=True):
        assert set(one.keys()) == set(other.keys())
        for name in one.keys():  # noqa: SIM118
            torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-7)
    assert [atoms.pbc.tolist() for atoms in dataset.to_ase()] == [[True, True, False], [False, False, False]]


def test_a_selection_gives_its_own_structures():
    dataset = EthanolPBE()
    atoms = dataset[[3, 1]].to_ase()
    assert [each.get_potential_energy() for each in atoms] == [dataset[n].energy.item() for n in (3, 1)]
    assert atoms[0].calc.results["forces"].dtype == np.float64


def test_labels_that_are_nan_are_none():
    nan = torch.full((1, 3, 3), torch.nan)
    data = Data(z=torch.tensor([29]), pos=torch.zeros(1, 3), stress=nan, forces=torch.zeros(1, 3))
    atoms = to_ase(data)
    assert set(atoms.calc.results) == {"forces"}
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()
    data.forces = data.forces * torch.nan
    assert to_ase(data).calc is None


def test_results_do_not_share_memory_with_the_item():
    data = EthanolPBE()[0]
    to_ase(data).calc.results["forces"][:] = 7
    assert (data.forces != 7).all()


def test_a_molecule_of_qm9_has_its_properties_by_name():
    dataset = QM9Sample()
    atoms = to_ase(dataset[5])
    assert atoms.info["number"] == dataset[5].number.item()
    assert atoms.info["alpha"] == dataset[5].y[0, dataset.target_index("alpha")].item()
    assert atoms.calc is None


def test_other_attributes_are_kept():
    data = Data(z=torch.tensor([8, 1, 1]), pos=torch.zeros(3, 3), charge=torch.tensor([-0.8, 0.4, 0.4]))
    data.dipole, data.weight, data.config_type = torch.ones(1, 3), torch.tensor([2.0]), "liquid"
    atoms = to_ase(data)
    np.testing.assert_allclose(atoms.arrays["charge"], [-0.8, 0.4, 0.4], rtol=1e-6)
    assert atoms.info["dipole"].tolist() == [1, 1, 1]
    assert atoms.info["weight"] == 2.0
    assert atoms.info["config_type"] == "liquid"
    data.config_type, data.dipole = torch.tensor(list(b"gas"), dtype=torch.uint8), torch.full((1, 3), torch.nan)
    atoms = to_ase(data)
    assert atoms.info["config_type"] == "gas"
    assert "dipole" not in atoms.info


def test_mistakes_are_named():
    data = EthanolPBE()[0]
    with pytest.raises(TypeError, match="data: expected one structure, got a batch of 2"):
        to_ase(Batch.from_data_list([data, data]))
    with pytest.raises(TypeError, match=r"expected one structure.*got EthanolPBE; .*dataset.to_ase\(\)"):
        to_ase(EthanolPBE())
    with pytest.raises(ValueError, match=r"got no \['z'\]"):
        to_ase(Data(pos=data.pos))
    with pytest.raises(ValueError, match=r"data.cell: expected shape \(1, 3, 3\), got \(2, 3, 3\)"):
        to_ase(Data(z=data.z, pos=data.pos, cell=torch.zeros(2, 3, 3)))
