import copy

import pytest
import torch
from torch_geometric.data import Batch, Data

from pyg_cgconv import Potential, RadiusGraph
from train.predictions import batches, predict_frames

CUTOFF = 3.0


@pytest.fixture(scope="module")
def potential() -> Potential:
    torch.manual_seed(2)
    options = dict(channels=4, lmax=1, layers=1, num_radial=3, radial_hidden=(4,), dtype="float64")
    return Potential(["H", "O"], CUTOFF, **options).eval()


def structure(num_atoms: int, periodic: bool, length: float = 3.6) -> Data:
    torch.manual_seed(num_atoms)
    frame = Data(z=torch.tensor([1, 8] * num_atoms)[:num_atoms], pos=3.5 * torch.rand(num_atoms, 3).double())
    frame.cell, frame.pbc = length * torch.eye(3).double()[None], torch.full((1, 3), periodic)
    return RadiusGraph(CUTOFF)(frame)


def test_batches_keep_the_order_and_separate_what_has_no_volume():
    lengths = [0.0, 0.0, 0.0, 3.6, 3.6, 0.0]
    frames = [structure(3 + i, length > 0, length) for i, length in enumerate(lengths)]
    found = [[frame.num_nodes for frame in batch] for batch in batches(frames, 2)]
    assert found == [[3, 4], [5], [6, 7], [8]]


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_every_frame_gets_what_it_gets_alone(potential, device, batch_size):
    kinds = [(3, False, 0.0), (5, False, 0.0), (4, True, 3.6), (6, False, 3.6), (2, True, 3.6)]
    frames = [structure(*kind) for kind in kinds]
    found = list(predict_frames(copy.deepcopy(potential).to(device), frames, batch_size))
    for frame, prediction in zip(frames, found, strict=True):
        has_volume = bool(frame.cell.any())
        alone = potential(Batch.from_data_list([frame]), compute_stress=has_volume)
        assert prediction.energy == pytest.approx(alone["energy"].item(), rel=1e-12)
        torch.testing.assert_close(torch.from_numpy(prediction.forces), alone["forces"])
        assert (prediction.stress is not None) == has_volume
        if has_volume:
            torch.testing.assert_close(torch.from_numpy(prediction.stress), alone["stress"][0])


def test_frames_without_a_cell_have_no_stress(potential):
    frame = Data(z=torch.tensor([1, 8]), pos=torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]).double())
    (prediction,) = predict_frames(potential, [RadiusGraph(CUTOFF)(frame)], 1)
    assert prediction.stress is None
    assert prediction.forces[0, 0] == -prediction.forces[1, 0] != 0.0


def test_whoever_takes_the_predictions_keeps_gradients(potential):
    frames = [structure(3, True), structure(4, True)]
    two = [predict_frames(potential, frames, 1) for _ in range(2)]
    for _ in zip(*two, strict=True):
        assert torch.is_grad_enabled()
    assert torch.is_grad_enabled()
