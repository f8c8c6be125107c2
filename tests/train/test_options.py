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


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_a_missing_package_is_named(monkeypatch, package):
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    assert getattr(RunOptions(device="cpu"), package) is False
    with pytest.raises(ValueError, match=f"{package}=True, .*pip install {package}"):
        RunOptions(device="cpu", **{package: True})


def test_a_project_to_which_nothing_is_sent_is_named():
    with pytest.raises(ValueError, match=r"wandb_project='alloys': .* give --wandb true"):
        RunOptions(device="cpu", wandb_project="alloys")


def test_more_gpus_than_there_are_is_named(monkeypatch):
    monkeypatch.setattr(options.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(options.torch.cuda, "device_count", lambda: 2)
    assert RunOptions(devices=2).accelerator == "gpu"
    with pytest.raises(ValueError, match="devices=3: torch finds 2 CUDA GPUs"):
        RunOptions(devices=3)
