"""The embedded periodic set: made again, and against mechanics."""

import numpy as np
import pytest
import torch
from ase.calculators.emt import EMT

from datasets import AlloysEMT, generate_alloys
from datasets.alloys import FILE, read_alloys, write_alloys
from pyg_cgconv import RadiusGraph

SHAPES = len(generate_alloys.SHAPES)


@pytest.fixture(scope="module")
def dataset():
    return AlloysEMT()


@pytest.fixture(scope="module")
def atoms(dataset):
    return dataset.to_ase()


@pytest.fixture(scope="module")
def made_as():
    """The number by which each structure was made."""
    with np.load(FILE) as arrays:
        return arrays["frame"]


def test_item(dataset):
    item = dataset[0]
    n = item.num_nodes
    assert {name: (tuple(value.shape), value.dtype) for name, value in item.to_dict().items()} == {
        "z": ((n,), torch.int64),
        "pos": ((n, 3), torch.float64),
        "forces": ((n, 3), torch.float64),
        "energy": ((1,), torch.float64),
        "stress": ((1, 3, 3), torch.float64),
        "cell": ((1, 3, 3), torch.float64),
        "pbc": ((1, 3), torch.bool),
    }


def test_what_is_in_it(dataset, made_as):
    assert len(dataset) == len(set(made_as.tolist())) == 600
    assert set(torch.cat([item.z for item in dataset]).tolist()) == {13, 28, 29, 79}
    assert np.bincount(made_as[:100] % SHAPES, minlength=SHAPES).min() > 3  # any slice has cells of every shape
    periodic = torch.cat([item.pbc for item in dataset]).sum(1)
    assert {n: int((periodic == n).sum()) for n in periodic.tolist()} == {3: 468, 2: 132}
    assert FILE.stat().st_size < 400_000


@pytest.mark.parametrize("shape", range(SHAPES))
def test_frames_are_made_again(atoms, made_as, shape):
    number = 7 * SHAPES + shape
    (place,) = np.flatnonzero(made_as == number)
    kept, made = atoms[place], generate_alloys.frame(number)
    assert (kept.numbers == made.numbers).all()
    assert (kept.pbc == made.pbc).all()
    assert np.abs(kept.positions - made.positions).max() < 1e-9
    assert np.abs(kept.cell.array - made.cell.array).max() < 1e-9
    assert kept.get_potential_energy() == pytest.approx(made.get_potential_energy(), abs=1e-9)
    assert np.abs(kept.get_forces() - made.get_forces()).max() < 1e-7
    assert np.abs(kept.get_stress() - made.get_stress()).max() < 1e-9


def test_forces_and_stresses_are_derivatives_of_the_energy(atoms):
    """Along a random displacement and a random strain."""
    rng, step = np.random.RandomState(0), 1e-4
    for kept in atoms[:10]:
        direction, strain = rng.normal(size=(len(kept), 3)), rng.normal(size=(3, 3)) / 3
        energies = []
        for sign in (-1, 1):
            moved = kept.copy()
            moved.set_cell(kept.cell.array @ (np.eye(3) + sign * step * (strain + strain.T)), scale_atoms=True)
            moved.positions += sign * step * direction
            moved.calc = EMT()
            energies.append(moved.get_potential_energy())
        change = (energies[1] - energies[0]) / (2 * step)
        of_strain = kept.cell.volume * (kept.get_stress(voigt=False) * (strain + strain.T)).sum()
        expected = of_strain - (kept.get_forces() * direction).sum()
        assert change == pytest.approx(expected, abs=1e-4)


def test_forces_sum_to_zero_and_stresses_are_symmetric(dataset):
    for item in dataset:
        assert item.forces.sum(0).abs().max() < 1e-6
        assert (item.stress - item.stress.mT).abs().max() < 1e-9


def test_a_stretched_crystal_wants_to_shrink(dataset):
    """The sign: pressure falls with volume. Gold, one atom a cell."""
    lonely = [item for item in dataset if item.num_nodes == 1 and item.z.item() == 79]
    volume = torch.stack([torch.linalg.det(item.cell[0]).abs() for item in lonely])
    trace = torch.stack([item.stress[0].trace() for item in lonely])
    assert len(lonely) > 10
    assert trace[volume.argmax()] > 0 > trace[volume.argmin()]
    assert torch.corrcoef(torch.stack([volume, trace]))[0, 1] > 0.9


def test_neighbours_and_selections():
    dataset = AlloysEMT(pre_transform=RadiusGraph(3.5), pre_filter=lambda item: item.num_nodes == 1)
    assert len(dataset) == 67
    assert dataset[0].edge_shift.shape == (dataset[0].num_edges, 3)


def test_what_is_written_is_read_back(tmp_path):
    structures = [generate_alloys.frame(number) for number in (3, 8)]
    write_alloys(tmp_path / "two.npz", structures, np.array([3, 8]))
    data, slices = read_alloys(tmp_path / "two.npz")
    assert slices["pos"].tolist() == [0, len(structures[0]), len(structures[0]) + len(structures[1])]
    assert slices["cell"].tolist() == [0, 1, 2]
    assert (data.cell.numpy() == [each.cell.array for each in structures]).all()


def test_broken_files(tmp_path):
    broken = tmp_path / "alloys.npz"
    broken.write_bytes(FILE.read_bytes()[:100_000])
    with pytest.raises(ValueError, match=r"alloys\.npz: not a whole npz file"):
        read_alloys(broken)
    with np.load(FILE) as arrays:
        np.savez(broken, **(dict(arrays) | {"forces": arrays["forces"][1:]}))
    with pytest.raises(ValueError, match=r"alloys\.npz: arrays of shapes .*'forces': \(4594, 3\)"):
        read_alloys(broken)
