"""A training that is stopped and goes on ends with the weights of one that was not."""

import csv
import json
from dataclasses import replace

import pytest
import torch

from train.checkpoints import LAST
from train.module import PotentialModule
from train.run import train

STEPS_AN_EPOCH = 10


class PowerCut(RuntimeError):
    pass


@pytest.fixture
def cut_after(monkeypatch):
    """Lets the training fail after a number of steps, once."""
    step = PotentialModule.training_step

    def cut(steps: int) -> None:
        left = [steps]

        def failing(module, batch, batch_idx):
            if not left[0]:
                monkeypatch.setattr(PotentialModule, "training_step", step)
                raise PowerCut
            left[0] -= 1
            return step(module, batch, batch_idx)

        monkeypatch.setattr(PotentialModule, "training_step", failing)

    return cut


def read_state(folder) -> dict:
    return torch.load(folder / LAST, weights_only=False)


def read_log(folder) -> list[dict]:
    with open(folder / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def assert_same(found, expected) -> None:
    """Equal bit for bit, whatever the nesting."""
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected)
    else:
        assert found == expected


def assert_same_end(found, expected) -> None:
    one, other = read_state(found), read_state(expected)
    for key in ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers", "epoch"):
        if key in other:
            assert_same(one[key], other[key])
    assert one["global_step"] == other["global_step"] > 0
    assert read_log(found) == read_log(expected)
    results = [json.loads((folder / "metrics.json").read_text()) for folder in (found, expected)]
    for name in ("test", "validation", "epochs", "steps"):
        assert results[0][name] == results[1][name]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, splits, model, fit, run):
    """The folder of a training that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    train(splits, folder, model, fit, run)
    return folder


@pytest.mark.parametrize("steps", [STEPS_AN_EPOCH + 4, 2 * STEPS_AN_EPOCH], ids=["mid-epoch", "epoch boundary"])
def test_power_cut_changes_nothing(tmp_path, splits, model, fit, run, cut_after, whole, steps):
    cut_after(steps)
    with pytest.raises(PowerCut):
        train(splits, tmp_path, model, fit, run)
    assert not (tmp_path / "metrics.json").exists()
    train(splits, tmp_path, model, fit, replace(run, resume=tmp_path))
    assert_same_end(tmp_path, whole)
