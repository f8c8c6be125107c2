"""Padded batches against the batches that PyG makes of the same frames."""

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from pyg_cgconv import Potential, RadiusGraph
from train import columns
from train.loss import label_weights, penalty, residuals, sum_over_labels
from train.padded_frames import PaddedFrames
from train.padding import PaddedSize

CUTOFF = 4.0


def molecule(random, atoms: int) -> Data:
    data = Data(
        z=torch.from_numpy(random.choice([1, 6, 8], size=atoms)),
        pos=torch.from_numpy(random.normal(scale=1.5, size=(atoms, 3))),
        energy=torch.from_numpy(random.normal(size=1)),
        forces=torch.from_numpy(random.normal(size=(atoms, 3))),
    )
    return RadiusGraph(CUTOFF)(data)


def crystal(random, atoms: int) -> Data:
    data = Data(
        z=torch.from_numpy(random.choice([1, 6, 8], size=atoms)),
        pos=torch.from_numpy(random.uniform(high=4.0, size=(atoms, 3))),
        cell=torch.from_numpy(4.0 * np.eye(3) + random.normal(scale=0.2, size=(1, 3, 3))),
        energy=torch.from_numpy(random.normal(size=1)),
        forces=torch.from_numpy(random.normal(size=(atoms, 3))),
        stress=torch.from_numpy(random.normal(size=(1, 3, 3))),
    )
    return RadiusGraph(CUTOFF)(data)


@pytest.fixture(params=[molecule, crystal], ids=["molecules", "crystals"])
def frames(request) -> list[Data]:
    """Mixed sizes and weights, an atom without neighbours and frames without labels of forces or energy among them."""
    random = np.random.default_rng(0)
    frames = [request.param(random, atoms) for atoms in (5, 9, 3, 1, 7, 6)]
    frames[2].forces[:] = torch.nan
    frames[4].energy[:] = torch.nan
    for frame in frames:
        frame.weight = torch.from_numpy(random.uniform(0.1, 5.0, size=(1, 3)))
    return frames


@pytest.fixture(scope="module")
def potential() -> Potential:
    torch.manual_seed(0)
    return Potential(
        ["H", "C", "O"], CUTOFF, channels=4, lmax=1, layers=2, radial_hidden=(6,), shift=-3.0, dtype="float64"
    )


def loss_and_gradients(potential: Potential, batch: Batch) -> tuple[list[float], list[torch.Tensor]]:
    quantities = ["energy", "forces", "stress"] if "stress" in batch else ["energy", "forces"]
    potential.validate = False
    predicted = potential(batch, compute_stress="stress" in quantities)
    errors = residuals(predicted, batch, force_scale=1.0)
    sums = [sum_over_labels(error, penalty("mse", 1.0), label_weights(name, batch)) for name, error in errors.items()]
    loss = sum(total / count for total, count in sums)
    gradients = torch.autograd.grad(loss, list(potential.parameters()))
    return [loss.item(), *(count.item() for _, count in sums)], list(gradients)


@pytest.mark.parametrize("numbers", [[0, 1, 2], [4, 3, 0, 5], [1], [5, 4, 3, 2, 1, 0]], ids=str)
def test_padding_changes_neither_loss_nor_gradients(frames, potential, numbers):
    padded = PaddedFrames(frames, CUTOFF, "cpu")
    numbers = torch.tensor(numbers)
    exact = padded.size_of(numbers)
    generous = PaddedSize(exact.frames, exact.atoms + 11, exact.edges + 57)
    plain = Batch.from_data_list([frames[i] for i in numbers])
    expected, expected_gradients = loss_and_gradients(potential, plain)
    for size in (exact, generous):
        found, gradients = loss_and_gradients(potential, padded.batch(numbers, size))
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
            torch.testing.assert_close(gradient, expected_gradient, rtol=1e-12, atol=1e-12)
    assert any(gradient.abs().max() > 1e-3 for gradient in expected_gradients)


def test_the_frames_come_first_and_unchanged(frames):
    padded = PaddedFrames(frames, CUTOFF, "cpu")
    numbers = torch.tensor([4, 1, 2])
    size = padded.size_of(numbers)
    batch, plain = padded.batch(numbers, size), Batch.from_data_list([frames[i] for i in numbers])
    assert batch.num_graphs == 4
    assert (batch.num_nodes, batch.num_edges) == (size.atoms, size.edges)
    assert torch.equal(batch.ptr[:-1], plain.ptr)
    assert batch.ptr[-1] == size.atoms
    assert torch.equal(batch.edge_index.as_tensor()[:, : plain.num_edges], plain.edge_index)
    for name in {"z", "pos", "forces", "edge_shift", "cell", "energy", "stress", "batch"} & set(plain.to_dict()):
        torch.testing.assert_close(batch[name][: len(plain[name])], plain[name], rtol=0, atol=0, equal_nan=True)


def test_padding_has_no_labels_and_edges_beyond_the_cutoff(frames):
    padded = PaddedFrames(frames, CUTOFF, "cpu")
    numbers = torch.tensor([0, 2])
    exact = padded.size_of(numbers)
    batch = padded.batch(numbers, PaddedSize(2, exact.atoms + 5, exact.edges + 40))
    begin, edges = batch.ptr[2], sum(frames[i].num_edges for i in (0, 2))
    assert batch.energy[2:].isnan().all()
    assert batch.forces[begin:].isnan().all()
    source, target = batch.edge_index.as_tensor()[:, edges:]
    assert (batch.batch[source] == 2).all()
    assert (batch.batch[target] == 2).all()
    assert ((batch.pos[source] - batch.pos[target]).norm(dim=1) > CUTOFF).all()


def test_padding_edges_are_dealt_out_evenly(frames):
    padded = PaddedFrames(frames, CUTOFF, "cpu")
    numbers = torch.tensor([0, 2])
    exact = padded.size_of(numbers)
    batch = padded.batch(numbers, PaddedSize(2, exact.atoms + 5, exact.edges + 40))
    degrees = torch.bincount(batch.edge_index.as_tensor()[1], minlength=batch.num_nodes)[batch.ptr[2] :]
    assert degrees.max() - degrees.min() <= 1


def test_edges_are_sorted_by_target(frames):
    padded = PaddedFrames(frames, CUTOFF, "cpu")
    numbers = torch.tensor([5, 0, 4])
    edge_index = padded.batch(numbers, padded.size_of(numbers)).edge_index
    assert edge_index.is_sorted_by_col
    edge_index.validate()


def test_batches_ask_nothing_of_the_device(frames):
    """Tensors without values have none to give, as those of a graph under capture."""
    padded = PaddedFrames(frames, CUTOFF, "meta")
    batch = padded.batch(torch.zeros(3, dtype=torch.int64, device="meta"), PaddedSize(3, 40, 300))
    assert {value.device.type for value in batch.to_dict().values()} == {"meta"}
    assert (batch.num_graphs, batch.num_nodes, batch.num_edges) == (4, 40, 300)


def test_memory_that_the_frames_take(frames):
    padded = PaddedFrames(frames, CUTOFF, "cpu")
    assert PaddedFrames.bytes_needed(frames) == sum(value.nbytes for value in padded._values.values())


@pytest.mark.parametrize("block", [1, 2, 4096])
def test_edges_in_another_order_are_refused(frames, block, monkeypatch):
    monkeypatch.setattr(columns, "BLOCK", block)
    frames[1].edge_index = frames[1].edge_index.flip(1)
    with pytest.raises(ValueError, match="edges of frame 1 are not sorted by target"):
        PaddedFrames(frames, CUTOFF, "cpu")


def test_frames_with_other_attributes_are_refused(frames):
    del frames[4].energy
    with pytest.raises(ValueError, match="frame 4 has the attributes"):
        PaddedFrames(frames, CUTOFF, "cpu")


def test_frames_without_edges_are_refused(frames):
    with pytest.raises(ValueError, match=r"edge_index.*RadiusGraph"):
        PaddedFrames([Data(z=frame.z, pos=frame.pos) for frame in frames], CUTOFF, "cpu")


def test_labels_of_another_shape_are_refused(frames):
    for frame in frames:
        frame.energy = torch.zeros(frame.num_nodes)
    with pytest.raises(ValueError, match="energy has 31 rows in all, expected one for each frame, 6 in all"):
        PaddedFrames(frames, CUTOFF, "cpu")


def test_no_frames_are_refused():
    with pytest.raises(ValueError, match="frames: none given"):
        PaddedFrames([], CUTOFF, "cpu")
