"""What the tests of integrations share: agreement of two models, and processes of their own."""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}
ROOT = Path(__file__).parents[1]


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


def in_fresh_process(script: str, *arguments: object) -> None:
    """Runs a script of which an error is the test's."""
    command: Sequence[str] = [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
