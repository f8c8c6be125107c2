"""What the tests of integrations share: agreement of two models, and processes of their own."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}
ROOT = Path(__file__).parents[1]
CAPTURING = {f"pyg_cgconv.{name}" for name in ("_functions", "integrations._linear", "integrations._mace_radial")}
"""Modules that do other things where a CUDA graph is captured."""


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """These packages make their models and data in the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest deviation, in units of the largest number that was expected."""
    assert found.shape == expected.shape
    return float((found - expected).detach().abs().max() / expected.detach().abs().max().clamp(min=1e-300))


def assert_agree(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float) -> None:
    """All that is expected is found."""
    errors = {name: relative_error(found[name], expected[name]) for name in expected}
    assert max(errors.values()) < tolerance, errors


def loss_gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """The gradient of a loss by each parameter that it depends on."""
    named = {name: each for name, each in model.named_parameters() if each.requires_grad}
    gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: g for name, g in zip(named, gradients, strict=True) if g is not None and g.abs().max() > 0}


def hessian(forces: Tensor, by: Tensor) -> Tensor:
    """The derivatives of each component of the forces."""
    return torch.stack([torch.autograd.grad(force, by, retain_graph=True)[0] for force in forces.flatten()])


@pytest.fixture
def as_captured(monkeypatch):
    """What is computed is what a CUDA graph would have."""
    for name in CAPTURING & sys.modules.keys():
        monkeypatch.setattr(f"{name}.is_for_graph", lambda tensor: True)


class _Counting(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        self.count += not (function.is_view or function.overloadpacket is torch.ops.aten.detach)
        return function(*arguments, **(named or {}))


def operations(call: Callable[[], object]) -> int:
    """How many a GPU is given; views are none."""
    with _Counting() as counting:
        call()
    return counting.count


def in_fresh_process(script: str, *arguments: object) -> None:
    """Runs a script of which an error is the test's."""
    command: Sequence[str] = [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def filled(fast, given: Mapping[str, Tensor], edges: int, atoms: int) -> dict[str, Tensor]:
    """What a graph of an accelerated model, with cutoff 3, computes for structures, with room for more edges and atoms.
    Numbers in the room are those of other structures."""
    (name, dim), *_ = fast.by_edge.items()
    given = fast.inputs(given)
    count, own = given[name].shape[dim], given[fast.by_atom[0]].shape[0]
    roomy = dict(given)
    for name, dim in fast.by_edge.items():
        if name in given:
            first = given[name].narrow(dim, 0, 1)
            roomy[name] = torch.cat([given[name], *[first + 1] * edges], dim)
    for name in fast.by_atom:
        if name in given:
            roomy[name] = torch.cat([given[name], 7 * given[name][:atoms]])
    if atoms:
        roomy = fast.with_one_more(roomy, torch.tensor(own))
    return fast.completed(roomy, torch.tensor(count), cutoff=3.0)


def own_rows(results: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of what is expected, without the rows of fillers."""
    return {name: results[name][: len(value)] for name, value in expected.items()}


def assert_captured_training(fast: nn.Module, original: nn.Module, evaluate, batches: Sequence, tolerance: float):
    """A model whose calls are captured is trained as the original is.

    Args:
        evaluate: of a model in training and a batch, energies and forces, both with gradients.
        batches: at least two, the first two with as many atoms.
    """
    models = fast, original
    optimizers = [torch.optim.Adam(each.parameters(), lr=1e-3) for each in models]

    def loss(model: nn.Module, batch) -> Tensor:
        energy, forces = evaluate(model, batch)
        return energy.square().mean() + forces.square().sum()

    for batch in [*batches, *batches]:  # steps
        found, expected = (loss_gradients(each, loss(each, batch)) for each in models)
        assert_agree(found, expected, tolerance)
        for each, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            loss(each, batch).backward()
            optimizer.step()
        assert_agree(dict(fast.named_parameters()), dict(original.named_parameters()), 100 * tolerance)
    original.load_state_dict(fast.state_dict())
    counted = fast._replay.replays
    assert counted == 4 * len(batches)

    # Two calls before a backward, and one of inference: the second has no graph, and no memory of the first's.
    pending = []
    for each in models:
        first, second = loss(each, batches[0]), loss(each, batches[1])
        each.eval(), evaluate(each, batches[0]), each.train()
        pending.append(loss_gradients(each, first + second))
    assert_agree(*pending, tolerance)

    first = loss(fast, batches[0])
    first.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="cuda_graphs: the gradients of this call have been computed"):
        first.backward()

    # Some parameters are frozen; a loss of energies alone, and one that nobody differentiates.
    for each in models:
        next(each.parameters()).requires_grad_(False)
    loss(fast, batches[0])
    found, expected = (loss_gradients(each, evaluate(each, batches[0])[0].sum()) for each in models)
    assert_agree(found, expected, tolerance)
    assert set(found) == set(expected)
    for each in models:
        next(each.parameters()).requires_grad_(True)
    assert fast._replay.replays > counted
