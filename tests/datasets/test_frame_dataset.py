import numpy as np
import pytest
import torch
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.loader import DataLoader

from datasets import FrameDataset
from datasets.npz import Frames
from pyg_cgconv.potential import RadiusGraph


def frames(count=6):
    rng = np.random.default_rng(1)
    return Frames(
        z=np.array([8, 1, 1]),
        pos=rng.normal(size=(count, 3, 3)),
        energy=-4209 + rng.normal(size=count),
        forces=rng.normal(size=(count, 3, 3)),
    )


def assert_equal(left, right):
    assert sorted(left.keys()) == sorted(right.keys())  # PyG lists them in the order of a set
    for key in left.keys():  # noqa: SIM118, iterating a Data yields pairs
        assert left[key].dtype == right[key].dtype
        assert torch.equal(left[key], right[key]), key


def test_item():
    source = frames()
    item = FrameDataset(source)[4]
    assert_equal(
        item,
        Data(
            z=torch.tensor([8, 1, 1]),
            pos=torch.tensor(source.pos[4]),
            energy=torch.tensor(source.energy[4:5]),
            forces=torch.tensor(source.forces[4]),
        ),
    )
    assert item.pos.dtype == item.energy.dtype == item.forces.dtype == torch.float64
    assert item.num_nodes == 3


@pytest.mark.parametrize("count", [1, 2, 6])
def test_storage_is_what_pyg_collates(count):
    dataset = FrameDataset(frames(count))
    data, slices = InMemoryDataset.collate([dataset[i] for i in range(count)])
    assert len(dataset) == count
    assert_equal(dataset._data, data)
    if count == 1:
        assert dataset.slices is None
        assert slices is None
    else:
        assert slices.keys() == dataset.slices.keys()
        assert all(torch.equal(slices[key], dataset.slices[key]) for key in slices)


def test_batch():
    source = frames()
    batch = next(iter(DataLoader(FrameDataset(source)[torch.tensor([5, 0])], batch_size=2)))
    assert torch.equal(batch.energy, torch.tensor(source.energy[[5, 0]]))
    assert torch.equal(batch.forces, torch.tensor(source.forces[[5, 0]]).reshape(6, 3))
    assert batch.batch.tolist() == [0, 0, 0, 1, 1, 1]


class Counted:
    """A transform that counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, data):
        self.calls += 1
        data.number = torch.tensor([self.calls])
        return data


def test_pre_transform_is_applied_once():
    counted = Counted()
    dataset = FrameDataset(frames(), pre_transform=counted)
    assert [dataset[i].number.item() for i in (0, 1, 5, 5, 0)] == [1, 2, 6, 6, 1]
    assert counted.calls == 6


def test_transform_is_applied_at_every_access():
    counted = Counted()
    dataset = FrameDataset(frames(), transform=counted)
    assert counted.calls == 0
    assert [dataset[i].number.item() for i in (0, 0, 3)] == [1, 2, 3]


def test_pre_filter_comes_before_pre_transform():
    source, counted = frames(), Counted()
    threshold = float(np.median(source.energy))
    dataset = FrameDataset(source, pre_filter=lambda frame: frame.energy.item() < threshold, pre_transform=counted)
    assert len(dataset) == counted.calls == 3
    assert torch.cat([frame.energy for frame in dataset]).tolist() == source.energy[source.energy < threshold].tolist()


def test_pre_filter_that_keeps_one_or_none():
    source = frames()
    dataset = FrameDataset(source, pre_filter=lambda frame: frame.energy.item() == source.energy[2])
    assert len(dataset) == 1
    assert torch.equal(dataset[0].pos, torch.tensor(source.pos[2]))
    with pytest.raises(ValueError, match="pre_filter: it keeps none of the 6 frames"):
        FrameDataset(source, pre_filter=lambda frame: False)


@pytest.mark.parametrize("argument", ["transform", "pre_transform"])
def test_neighbors(argument):
    graph = RadiusGraph(2.0)
    dataset = FrameDataset(frames(), **{argument: graph})
    plain = FrameDataset(frames())
    for i in range(6):
        assert_equal(dataset[i], graph(plain[i]))
    batch = next(iter(DataLoader(dataset, batch_size=6)))
    assert batch.edge_index.shape[1] == sum(frame.edge_index.shape[1] for frame in dataset)
    assert (batch.edge_index[1].diff() >= 0).all()


def test_random_split():
    dataset = FrameDataset(frames(20))
    train, validation, test = dataset.random_split(10, 3, 5, seed=1)
    assert (len(train), len(validation), len(test)) == (10, 3, 5)
    assert len(torch.cat([train, validation, test]).unique()) == 18
    again, other = dataset.random_split(10, 3, 5, seed=1), dataset.random_split(10, 3, 5, seed=2)
    assert all(torch.equal(a, b) for a, b in zip((train, validation, test), again, strict=True))
    assert not torch.equal(test, other[2])
    assert torch.equal(dataset[test][0].pos, dataset[int(test[0])].pos)


def test_test_frames_stay_when_training_frames_grow():
    dataset = FrameDataset(frames(20))
    assert torch.equal(dataset.random_split(2, 1, 5)[2], dataset.random_split(10, 3, 5)[2])
    assert torch.equal(dataset.random_split(2, 1, 5)[0], dataset.random_split(10, 3, 5)[0][:2])


def test_random_split_refuses():
    dataset = FrameDataset(frames())
    with pytest.raises(ValueError, match="7 frames in all, but the dataset has 6"):
        dataset.random_split(4, 1, 2)
    with pytest.raises(ValueError, match="validation: expected a number of frames, got -1"):
        dataset.random_split(4, -1, 2)
