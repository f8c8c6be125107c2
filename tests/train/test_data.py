import numpy as np
import torch

from train.data import FrameDataModule, labels, with_neighbors

from .conftest import CUTOFF, spring_frames


def test_neighbors_are_all_pairs_within_the_cutoff():
    frames = with_neighbors(spring_frames(3), cutoff=1.5)
    for frame in frames:
        distances = torch.cdist(frame.pos, frame.pos)
        expected = {tuple(pair) for pair in ((distances < 1.5) & (distances > 0)).nonzero().tolist()}
        assert {tuple(pair) for pair in frame.edge_index.T.tolist()} == expected


def test_batches_keep_edges_sorted_by_target(splits):
    for batch in FrameDataModule(splits, batch_size=4).train_dataloader():
        assert (batch.edge_index[1].diff() >= 0).all()


def energies_of_epoch(loader, epoch: int) -> torch.Tensor:
    loader.sampler.set_epoch(epoch)
    return torch.cat([batch.energy for batch in loader])


def test_training_order_follows_its_seed(splits):
    first, again, other = (
        energies_of_epoch(FrameDataModule(splits, batch_size=7, seed=seed).train_dataloader(), epoch=1)
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_training_order_changes_every_epoch_and_covers_every_frame(splits):
    loader = FrameDataModule(splits, batch_size=7).train_dataloader()
    first, second = (energies_of_epoch(loader, epoch) for epoch in range(2))
    assert not torch.equal(first, second)
    expected = np.sort([frame.energy.item() for frame in splits.train])
    np.testing.assert_array_equal(np.sort(first.numpy()), expected)
    np.testing.assert_array_equal(np.sort(second.numpy()), expected)


def test_evaluation_keeps_the_order_of_frames(splits):
    _, test = FrameDataModule(splits, batch_size=1).predict_dataloader()
    energies = torch.cat([batch.energy for batch in test]).numpy()
    np.testing.assert_array_equal(energies, labels(splits.test).energy)


def test_labels_stay_float64():
    found = labels(with_neighbors(spring_frames(2), CUTOFF))
    assert found.energy.dtype == found.forces.dtype == np.float64
    assert found.num_atoms.tolist() == [5, 5]
