"""Steps against a plain loop over PyG's batches; with graphs where there is a GPU, without them on a CPU."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch

from pyg_cgconv.potential import Potential, Prepared, prepared
from train.captured_step import TURNS, CapturedStep
from train.loss import penalty, residuals, sum_over_labels
from train.padded_frames import PaddedFrames
from train.soap import Soap

from .conftest import CUTOFF

CLIP = 0.5
# Two sizes of batch, the larger one more often than a capture needs.
BATCHES = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], [3, 5, 7, 9], [1, 4, 6, 2], [2, 6], [9, 8, 7, 6], [0, 9]]


@pytest.fixture
def potential(device) -> Potential:
    torch.manual_seed(0)
    size = {"channels": 4, "lmax": 1, "layers": 1, "radial_hidden": (4,)}
    potential = Potential(["H", "C", "O"], CUTOFF, **size, products=True, radial_species=True, dtype="float64")
    potential.validate = False
    return potential.to(device)


@pytest.fixture
def frames(splits, device) -> PaddedFrames:
    return PaddedFrames(splits.train[:10], CUTOFF, device)


@pytest.fixture(params=["adam", "soap"])
def optimizer_of(request) -> Callable[[Potential], torch.optim.Optimizer]:
    return {"adam": adam, "soap": lambda potential: Soap(potential.parameters())}[request.param]


def adam(potential: Potential, **arguments) -> torch.optim.Adam:
    return torch.optim.Adam(potential.parameters(), lr=0.01, amsgrad=True, **{"fused": True, **arguments})


def loss_of(potential: Potential, batch: Batch | Prepared, weight: float = 1.0) -> torch.Tensor:
    labels = batch.data if isinstance(batch, Prepared) else batch
    errors = residuals(potential(batch), labels, force_scale=1.0)
    sums = {name: sum_over_labels(error, penalty("mse", 1.0)) for name, error in errors.items()}
    return sum((weight if name == "energy" else 1.0) * total / count for name, (total, count) in sums.items())


def new_step(potential: Potential, frames: PaddedFrames, optimizer: torch.optim.Optimizer) -> CapturedStep:
    return CapturedStep(
        lambda batch, weight: loss_of(potential, batch, weight or 1.0),
        lambda batch: prepared(potential, batch),
        clip=lambda: torch.nn.utils.clip_grad_norm_(potential.parameters(), CLIP),
        optimizer=optimizer,
        frames=frames,
        capture=frames.device.type == "cuda",
    )


def plain_losses(
    potential: Potential, frames: list, optimizer, rates: list[float], weights: list[float]
) -> list[float]:
    losses = []
    device = next(potential.parameters()).device
    for numbers, rate, weight in zip(BATCHES, rates, weights, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss = loss_of(potential, Batch.from_data_list([frames[i] for i in numbers]).to(device), weight)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(potential.parameters(), CLIP)
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_steps_are_those_of_a_plain_loop(potential, frames, splits, optimizer_of):
    """Also with a learning rate and a weight of the loss that change."""
    rates = np.linspace(0.02, 0.002, len(BATCHES)).astype(np.float32).tolist()  # a rate on the device is a float32
    weights = [1.0] * 5 + [10.0] * 3
    first = [weight.detach().clone() for weight in potential.parameters()]
    expected = plain_losses(potential, splits.train, optimizer_of(potential), rates, weights)
    plain = [weight.detach().clone() for weight in potential.parameters()]
    for weight, start in zip(potential.parameters(), first, strict=True):
        weight.data.copy_(start)

    optimizer, found = optimizer_of(potential), []
    step = new_step(potential, frames, optimizer)
    for numbers, rate, weight in zip(BATCHES, rates, weights, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        found.append(step(torch.tensor(numbers), weight).item())
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    for weight, other, start in zip(potential.parameters(), plain, first, strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-7, atol=1e-8)
        assert (other - start).abs().max() > 1e-3


def test_optimizer_looks_as_if_nothing_had_happened(potential, frames, optimizer_of):
    """Schedules and checkpoints see a number for the learning rate."""
    optimizer = optimizer_of(potential)
    settings = {name: value for name, value in optimizer.param_groups[0].items() if name != "params"}
    step = new_step(potential, frames, optimizer)
    for numbers in BATCHES:
        step(torch.tensor(numbers))
    assert {name: value for name, value in optimizer.param_groups[0].items() if name != "params"} == settings
    assert all(state.get("step", len(BATCHES)) == len(BATCHES) for state in optimizer.state.values())


def test_loss_is_overwritten_by_the_next_step(potential, frames):
    step = new_step(potential, frames, adam(potential))
    losses = [step(torch.tensor(numbers)) for numbers in BATCHES]
    assert len({loss.data_ptr() for loss in losses}) == 1


@pytest.mark.cuda
def test_graphs_are_captured_once_for_each_size(potential, frames):
    if frames.device.type != "cuda":
        pytest.skip("no GPU")
    step = new_step(potential, frames, adam(potential))
    for numbers in BATCHES:
        step(torch.tensor(numbers))
    graphs = {key: {turn.step for turn in turns} for key, turns in step.turns.items()}
    assert {len(steps) for steps in graphs.values()} == {TURNS}
    for numbers in BATCHES:
        step(torch.tensor(numbers))
    assert {key: {turn.step for turn in turns} for key, turns in step.turns.items()} == graphs


def test_an_optimizer_that_reads_its_rate_from_python_is_refused(potential, frames):
    with pytest.raises(ValueError, match=r"optimizer: .* Adam with fused=False"):
        new_step(potential, frames, adam(potential, fused=False))
    with pytest.raises(ValueError, match=r"optimizer: .* SGD"):
        new_step(potential, frames, torch.optim.SGD(potential.parameters(), fused=True))


def test_capture_needs_a_gpu(splits):
    frames = PaddedFrames(splits.train[:2], CUTOFF, "cpu")
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], fused=True)
    with pytest.raises(ValueError, match="capture: the frames lie on cpu"):
        CapturedStep(lambda batch, weight: None, lambda batch: batch, lambda: None, optimizer, frames)
