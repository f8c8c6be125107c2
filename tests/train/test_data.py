from dataclasses import replace

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from train.data import FrameDataModule, check_species, labels, made_alike, with_neighbors

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


def periodic(cell: list[list[float]], pbc: list[bool], **labels) -> Data:
    return with_neighbors(
        [
            Data(
                z=torch.tensor([1, 8]),
                pos=torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64),
                cell=torch.tensor([cell], dtype=torch.float64),
                pbc=torch.tensor([pbc]),
                **labels,
            )
        ],
        cutoff=2.0,
    )[0]


def test_a_slab_gets_a_lattice_vector_of_length_one_where_it_has_none():
    plane = [[3.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0]]
    slab = periodic(plane, [True, True, False])
    made_alike([slab])
    np.testing.assert_allclose(slab.cell[0, :2].numpy(), plane[:2])
    np.testing.assert_allclose(slab.cell[0, 2].abs().numpy(), [0, 0, 1])


def test_a_stress_without_a_volume_is_named():
    zero = [[0.0] * 3] * 3
    molecule = periodic(zero, [False] * 3, stress=torch.ones(1, 3, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"stress of frame 1: its cell .* has no volume"):
        made_alike([periodic(np.eye(3).tolist(), [True] * 3), molecule])


def test_frames_of_one_kind_stay_as_they_are():
    (frame,) = with_neighbors(spring_frames(1), CUTOFF)
    before = set(frame.keys())
    made_alike([frame])
    assert set(frame.keys()) == before


def test_elements_that_training_lacks_are_named(splits):
    foreign = replace(splits, validation=[periodic(np.eye(3).tolist(), [True] * 3, energy=torch.zeros(1))])
    check_species(foreign)
    foreign.validation[0].z[0] = 79
    with pytest.raises(ValueError, match=r"validation frames hold atomic numbers \[79\]"):
        check_species(foreign)


def test_labels_stay_float64():
    found = labels(with_neighbors(spring_frames(2), CUTOFF))
    assert found.energy.dtype == found.forces.dtype == np.float64
    assert found.num_atoms.tolist() == [5, 5]
