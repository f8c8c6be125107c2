"""SOAP against its published form, one matrix at a time with QR decompositions, and against Adam."""

import copy
import math

import pytest
import torch
from torch import Tensor

from train import soap
from train.soap import TURN_EVERY, Soap

SHAPES = [(6, 4), (4, 6), (5, 5), (6, 4), (1, 7), (7, 1), (1, 1)]


def random_weights(shapes=SHAPES, dtype=torch.float64) -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in shapes]


def take_steps(optimizer: Soap, steps: range) -> None:
    """Steps with random gradients, of directions that differ in size, and turns of the bases between them."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for k in steps:
        for place, weight in enumerate(weights):
            weight.grad = random_gradient(weight.cpu(), place, k).to(weight.device)
        if k % TURN_EVERY == 0:
            optimizer.turn()
        if optimizer.captures:
            optimizer.observe()
        optimizer.step()


def random_gradient(weight: Tensor, place: int, step: int) -> Tensor:
    torch.manual_seed(1000 * place + step)
    rows, columns = (torch.logspace(0, -1, n, dtype=weight.dtype) for n in weight.shape)
    return rows[:, None] * torch.randn(weight.shape, dtype=weight.dtype) * columns + 0.1


def published(weight: Tensor, gradients: list[Tensor], lr: float, beta1: float, beta2: float, eps: float) -> Tensor:
    """Algorithm 3 of the paper, with the identity as the first basis and without correction of the bias; covariances
    take up a gradient at the step after its own."""
    weight = weight.detach().clone()
    momentum, second_moment = torch.zeros_like(weight), torch.zeros_like(weight)
    left, right = (torch.zeros(n, n, dtype=weight.dtype) for n in weight.shape)
    u, w = (torch.eye(n, dtype=weight.dtype) for n in weight.shape)
    for k, (gradient, last) in enumerate(zip(gradients, [torch.zeros_like(weight), *gradients[:-1]], strict=True)):
        if k % TURN_EVERY == 0 and k:
            u, w = qr(left @ u), qr(right @ w)
        left, right = left.lerp(last @ last.T, 1 - beta2), right.lerp(last.T @ last, 1 - beta2)
        momentum = momentum.lerp(gradient, 1 - beta1)
        second_moment = second_moment.lerp((u.T @ gradient @ w) ** 2, 1 - beta2)
        weight -= lr * u @ ((u.T @ momentum @ w) / (second_moment.sqrt() + eps)) @ w.T
    return weight


def qr(matrix: Tensor) -> Tensor:
    q, r = torch.linalg.qr(matrix)
    return q * r.diagonal().sign()


SETTINGS = (0.1, 0.9, 0.95, 1e-6)


def test_steps_are_the_published_ones(monkeypatch):
    monkeypatch.setattr(soap, "DAMPING", 0.0)  # not in the paper
    weights, expected = random_weights(), []
    for place, weight in enumerate(weights):
        expected.append(published(weight, [random_gradient(weight, place, k) for k in range(50)], *SETTINGS))
    lr, *betas, eps = SETTINGS
    take_steps(Soap(weights, lr, betas, eps), range(50))
    for weight, other in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight.detach(), other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_long_side_is_cut(monkeypatch, axis):
    monkeypatch.setattr(soap, "DAMPING", 0.0)
    monkeypatch.setattr(soap, "MAX_BASIS", 4)
    (weight,) = random_weights([(9, 2) if axis == 0 else (2, 9)])
    gradients = [random_gradient(weight, 0, k) for k in range(50)]
    cut = zip(
        weight.split(3, axis), zip(*(gradient.split(3, axis) for gradient in gradients), strict=True), strict=True
    )
    expected = torch.cat([published(piece, of_piece, *SETTINGS) for piece, of_piece in cut], axis)
    lr, *betas, eps = SETTINGS
    take_steps(Soap([weight], lr, betas, eps), range(50))
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("size", [8, 24])
def test_far_fewer_steps_than_adam_where_directions_are_not_those_of_the_weights(size):
    """Least squares whose rows and columns are mixed by rotations: Adam scales entries, SOAP directions."""
    torch.manual_seed(0)
    rotations = [torch.linalg.qr(torch.randn(size, size, dtype=torch.float64))[0] for _ in range(2)]
    scales = torch.logspace(0, -1.5, size, dtype=torch.float64)
    left, right = (rotation * scales for rotation in rotations)
    wanted = torch.randn(size, size, dtype=torch.float64)

    def error(kind) -> float:
        weight = torch.nn.Parameter(torch.zeros_like(wanted))
        optimizer = kind([weight])
        for k in range(600):
            optimizer.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * k / 600))
            optimizer.zero_grad()
            (left.T @ (weight - wanted) @ right).square().sum().backward()
            if kind is Soap and k % TURN_EVERY == 0:
                optimizer.turn()
            optimizer.step()
        return float((weight.detach() - wanted).square().mean())

    assert error(Soap) < 0.1 * error(torch.optim.Adam)


@pytest.mark.slow
def test_bases_stay_orthonormal_where_gradients_span_few_directions():
    (weight,) = random_weights([(12, 9)], torch.float32)
    optimizer = Soap([weight])
    for k in range(10 * TURN_EVERY):
        torch.manual_seed(k % 2)  # two gradients of rank 1
        weight.grad = torch.randn(12, 1) @ torch.randn(1, 9)
        if k % TURN_EVERY == 0:
            optimizer.turn()
        optimizer.step()
    for side, n in enumerate(weight.shape):
        (basis,) = optimizer.state[weight][f"basis_{side}"]
        torch.testing.assert_close(basis.T @ basis, torch.eye(n), rtol=0, atol=1e-4)
        assert not torch.equal(basis, torch.eye(n))
    assert weight.isfinite().all()


@pytest.mark.cuda
@pytest.mark.parametrize("captures", [False, True])
def test_a_gpu_takes_the_same_steps(captures):
    weights = random_weights()
    others = [torch.nn.Parameter(weight.detach().cuda()) for weight in weights]
    take_steps(Soap(weights, 0.1), range(3 * TURN_EVERY + 5))
    optimizer = Soap(others, 0.1)
    optimizer.captures = captures
    take_steps(optimizer, range(3 * TURN_EVERY + 5))  # of the turns of a graph, the second and the third are its own
    for weight, other in zip(weights, others, strict=True):
        torch.testing.assert_close(other.detach().cpu(), weight.detach(), rtol=1e-7, atol=1e-7)


@pytest.mark.cuda
def test_turns_side_by_side_on_a_gpu_are_those_of_one_after_the_other():
    """Libraries' decompositions of matrices of several sizes, on several streams at the same time."""
    shapes = [(256, 256)] * 3 + [(300, 128)] * 4 + [(64, 368)] * 5 + [(128, 128)] * 8
    weights = random_weights(shapes)
    others = [torch.nn.Parameter(weight.detach().cuda()) for weight in weights]
    optimizers = Soap(weights, 0.1), Soap(others, 0.1)
    optimizers[1].captures = True
    for optimizer in optimizers:
        take_steps(optimizer, range(2 * TURN_EVERY + 1))
    for weight, other in zip(weights, others, strict=True):
        for side in (0, 1):
            found, expected = (
                o.state[w][f"basis_{side}"] for o, w in zip(optimizers[::-1], (other, weight), strict=True)
            )
            torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-5)


def test_no_gradient_makes_no_step():
    (weight,) = random_weights([(3, 4)])
    before = weight.detach().clone()
    weight.grad = torch.zeros_like(weight)
    optimizer = Soap([weight])
    for _ in range(2):
        optimizer.step()
        optimizer.turn()
    assert torch.equal(weight, before)


def test_weights_without_gradient_or_entries_are_left_alone():
    used, unused, empty = random_weights([(3, 4), (3, 4), (0, 4)])
    before = unused.detach().clone()
    used.grad, empty.grad = torch.randn_like(used), torch.zeros_like(empty)
    optimizer = Soap([used, unused, empty])
    optimizer.step()
    optimizer.turn()
    assert torch.equal(unused, before)
    moment = momentum_of(optimizer.state[used])
    unused.grad = torch.randn_like(unused)
    optimizer.step()
    assert not torch.equal(unused, before)
    torch.testing.assert_close(momentum_of(optimizer.state[used]), moment.lerp(used.grad[None], 0.05))


def momentum_of(state: dict) -> Tensor:
    return state["basis_0"] @ state["rotated_momentum"] @ state["basis_1"].mT


@pytest.mark.slow
def test_goes_on_from_states_of_earlier_versions():
    """Which kept the momentum in no basis."""
    weights, others = random_weights(), random_weights()
    first, second = Soap(weights), Soap(others)
    take_steps(first, range(TURN_EVERY + 5))
    saved = copy.deepcopy(first.state_dict())
    for state in saved["state"].values():
        rotated = state.pop("rotated_momentum")
        for side in {0, 1} & {int(name[-1]) for name in state if name.startswith("basis_")}:
            basis = state[f"basis_{side}"]
            rotated = basis @ rotated if side == 0 else rotated @ basis.mT
        state["momentum"] = rotated
    for weight, found in zip(others, weights, strict=True):
        weight.data.copy_(found.data)
    second.load_state_dict(saved)
    for optimizer in (first, second):
        take_steps(optimizer, range(TURN_EVERY + 5, 2 * TURN_EVERY + 3))
    for weight, other in zip(weights, others, strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [TURN_EVERY + 5, 2 * TURN_EVERY])
def test_goes_on_from_its_state_bit_for_bit(tmp_path, stop):
    whole, stopped, other = (random_weights() for _ in range(3))
    optimizer = Soap(whole)
    take_steps(optimizer, range(3 * TURN_EVERY))
    first = Soap(stopped)
    take_steps(first, range(stop))
    torch.save(first.state_dict(), tmp_path / "state.pt")
    for weight, found in zip(other, stopped, strict=True):
        weight.data.copy_(found.data)
    second = Soap(other)
    take_steps(second, range(2))  # is forgotten
    for weight, found in zip(other, stopped, strict=True):
        weight.data.copy_(found.data)
    second.load_state_dict(torch.load(tmp_path / "state.pt"))
    take_steps(second, range(stop, 3 * TURN_EVERY))
    assert all(torch.equal(weight, expected) for weight, expected in zip(other, whole, strict=True))


def test_learning_rate_may_be_a_tensor():
    found = []
    for lr in (0.3, torch.tensor(0.3)):
        weights = random_weights(dtype=torch.float32)
        take_steps(Soap(weights, lr), range(3))
        found.append([weight.detach() for weight in weights])
    torch.testing.assert_close(*found)


def test_weights_that_are_no_matrices_are_refused():
    with pytest.raises(ValueError, match=r"params: expected matrices, got a weight of shape \(3,\)"):
        Soap([torch.nn.Parameter(torch.zeros(3))])
