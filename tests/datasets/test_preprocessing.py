"""Several processes make what one makes."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.io import write
from torch_geometric.loader import DataLoader

from datasets import AtomsFile, FrameDataset
from datasets.npz import Frames
from datasets.preprocessing import FRAMES_IN_A_PART
from pyg_cgconv.potential import RadiusGraph

COUNT = FRAMES_IN_A_PART + 7  # a whole part and a piece of one


def frames(count=COUNT):
    rng = np.random.default_rng(2)
    return Frames(
        z=np.array([8, 1, 1, 6]),
        pos=rng.normal(size=(count, 4, 3)),
        energy=rng.normal(size=count),
        forces=rng.normal(size=(count, 4, 3)),
    )


def assert_same(left, right):
    assert set(left._data.keys()) == set(right._data.keys())
    for key, value in left._data.to_dict().items():
        assert torch.equal(value, right._data[key]), key
        assert torch.equal(left.slices[key], right.slices[key]), key


@pytest.fixture
def crystals(tmp_path):
    """Cells smaller than the cutoff, of one and of two atoms, whose lists come with shifts."""
    rng = np.random.default_rng(3)
    images = []
    for number in range(9):
        atoms = bulk("Cu", "fcc", 3.6, cubic=False) if number % 2 else bulk("NaCl", "rocksalt", 5.6)
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
        atoms.info["E"] = float(number)
        images.append(atoms)
    write(tmp_path / "crystals.xyz", images)
    return tmp_path / "crystals.xyz"


def low(frame):
    return frame.energy.item() < 0.3


@pytest.mark.parametrize("pre_filter", [None, low])
def test_molecules(pre_filter):
    options = dict(pre_transform=RadiusGraph(2.0), pre_filter=pre_filter)
    serial = FrameDataset(frames(), **options)
    assert len(serial) == COUNT if pre_filter is None else 0 < len(serial) < COUNT
    assert_same(FrameDataset(frames(), num_workers=2, **options), serial)


def test_crystals(crystals):
    options = dict(labels=["energy"], energy_key="E", pre_transform=RadiusGraph(4.0))
    serial = AtomsFile(crystals, **options)
    assert_same(AtomsFile(crystals, num_workers=2, **options), serial)
    assert all(frame.edge_shift.abs().max() >= 1 for frame in serial)


def test_batches_are_sorted_by_receiver(crystals):
    dataset = AtomsFile(crystals, labels=["energy"], energy_key="E", pre_transform=RadiusGraph(4.0), num_workers=2)
    batch = next(iter(DataLoader(dataset, batch_size=9, shuffle=True)))
    assert batch.num_graphs == 9
    assert (batch.edge_index[1].diff() >= 0).all()


def test_the_kept_file_holds_what_the_workers_made(tmp_path):
    options = dict(pre_transform=RadiusGraph(2.0), cache=tmp_path)
    made = FrameDataset(frames(), num_workers=2, **options)
    (kept,) = tmp_path.iterdir()
    written = kept.stat().st_mtime_ns
    assert_same(FrameDataset(frames(), **options), made)
    assert kept.stat().st_mtime_ns == written
    FrameDataset(frames(), pre_transform=RadiusGraph(2.1), cache=tmp_path)
    FrameDataset(frames(5), **options)
    assert len(list(tmp_path.iterdir())) == 3


def test_order_of_random_numbers_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    FrameDataset(frames(), pre_transform=RadiusGraph(2.0), num_workers=1)
    assert torch.equal(torch.rand(2), expected)


class Refusing:
    def __call__(self, frame):
        raise ValueError("pos: this frame cannot be")


def test_error_of_a_transform_comes_through():
    with pytest.raises(ValueError, match="pos: this frame cannot be"):
        FrameDataset(frames(), pre_transform=Refusing(), num_workers=1)


class Naming:
    def __call__(self, frame):
        frame.name = "water"
        return frame


def test_attributes_that_cannot_be_sent_are_refused():
    with pytest.raises(TypeError, match=r"\['name'\] differ; use num_workers=0"):
        FrameDataset(frames(), pre_transform=Naming(), num_workers=1)
    assert FrameDataset(frames(3), pre_transform=Naming())[2].name == "water"


def test_filter_that_keeps_nothing():
    with pytest.raises(ValueError, match=f"pre_filter: it keeps none of the {COUNT} frames"):
        FrameDataset(frames(), pre_filter=lambda frame: False, num_workers=1)


def test_negative_number_of_workers():
    with pytest.raises(ValueError, match="num_workers: expected 0 or more processes, got -1"):
        FrameDataset(frames(2), pre_transform=RadiusGraph(2.0), num_workers=-1)
