import pytest

from train import options
from train.options import FitOptions, RunOptions


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"stage_two_start": 1.5}, "stage_two_start=1.5: expected a part of the training"),
        ({"accumulate": 0}, "accumulate=0: expected a number above 0"),
        ({"stress_weight": -1.0}, "stress_weight=-1.0: expected 0 or more"),
        ({"huber_delta": 0.0}, "huber_delta=0.0: expected a number above 0"),
        ({"patience": -1}, "patience=-1: expected 0 or more"),
    ],
)
def test_fit_options_that_make_no_sense_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        FitOptions(**wrong)


def test_a_missing_tensorboard_is_named(monkeypatch):
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    assert RunOptions(device="cpu").tensorboard is False
    with pytest.raises(ValueError, match="pip install tensorboard"):
        RunOptions(device="cpu", tensorboard=True)


def test_more_gpus_than_there_are_is_named(monkeypatch):
    monkeypatch.setattr(options.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(options.torch.cuda, "device_count", lambda: 2)
    assert RunOptions(devices=2).accelerator == "gpu"
    with pytest.raises(ValueError, match="devices=3: torch finds 2 CUDA GPUs"):
        RunOptions(devices=3)
