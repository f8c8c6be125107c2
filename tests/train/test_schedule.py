from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import Timer

from train.schedule import constant, cosine, cosine_factor, plateau, training_progress


def optimizer(lr: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def rates(optimizer: torch.optim.Optimizer, schedule, steps: int) -> list[float]:
    """Learning rates of the first ``steps`` steps."""
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_cosine_rises_over_the_warmup_and_falls_to_zero():
    adam = optimizer(0.2)
    (schedule,) = cosine(adam, warmup_steps=3, progress=lambda step: step / 20)
    seen = rates(adam, schedule["scheduler"], 21)
    expected = [0.2 * min(1, (step + 1) / 4) * cosine_factor(step / 20) for step in range(21)]
    assert seen == pytest.approx(expected)
    assert [cosine_factor(0.0), cosine_factor(0.5), seen[-1]] == pytest.approx([1.0, 0.5, 0.0])


def test_constant_stays_after_the_warmup():
    adam = optimizer(0.5)
    (schedule,) = constant(adam, warmup_steps=4)
    assert rates(adam, schedule["scheduler"], 7) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5])


def test_plateau_keeps_its_cuts_through_the_warmup():
    adam = optimizer()
    warmup, decay = (entry["scheduler"] for entry in plateau(adam, 4, factor=0.5, patience=0, monitor="val/loss"))
    assert rates(adam, warmup, 6) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    for loss in (1.0, 1.0):  # the second brings no improvement
        decay.step(loss)
    assert rates(adam, warmup, 3) == pytest.approx([0.5, 0.5, 0.5])


@pytest.mark.parametrize(("elapsed", "expected"), [(0.0, 0.25), (12.0, 0.25), (30.0, 0.5), (90.0, 1.0)])
def test_progress_is_that_of_the_limit_that_is_nearer(monkeypatch, elapsed, expected):
    timer = Timer("00:00:01:00")
    monkeypatch.setattr(timer, "time_elapsed", lambda stage="train": elapsed)
    trainer = SimpleNamespace(
        callbacks=[timer], estimated_stepping_batches=400, strategy=SimpleNamespace(broadcast=lambda value: value)
    )
    assert training_progress(trainer, step=100) == pytest.approx(expected)


def test_progress_without_time_limit_counts_steps():
    trainer = SimpleNamespace(callbacks=[Timer()], estimated_stepping_batches=400)
    assert [training_progress(trainer, step) for step in (0, 100, 400)] == [0.0, 0.25, 1.0]
