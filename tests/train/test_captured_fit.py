"""Lightning's loop over captured steps against its ordinary one; on a CPU they run without graphs."""

import csv
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.loggers import CSVLogger

from train.averaging import ExponentialMovingAverage
from train.captured_fit import CapturedStrategy, captures
from train.data import FrameDataModule, Splits
from train.module import new_module
from train.options import FitOptions
from train.statistics import collect_statistics


def fitted(folder, splits, model, fit, device="cpu", captured=True, checkpoint=None, **arguments) -> Trainer:
    """A training in float64; the batches of each epoch are of two sizes, and it is saved within an epoch, too."""
    seed_everything(0, verbose=False)
    module = new_module(model, fit, collect_statistics(splits.train), "float64")
    trainer = Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        strategy=CapturedStrategy(device if device == "cpu" else "cuda:0", capture=device == "cuda")
        if captured
        else "auto",
        max_epochs=3,
        gradient_clip_val=0.5,
        callbacks=[
            Timer(),
            ExponentialMovingAverage(0.5),
            ModelCheckpoint(folder, filename="end"),
            ModelCheckpoint(folder, filename="{step}", every_n_train_steps=8, save_top_k=-1),
        ],
        logger=CSVLogger(folder, name="", version=""),
        inference_mode=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
        **arguments,
    )
    trainer.fit(module, FrameDataModule(splits, batch_size=7), ckpt_path=checkpoint, weights_only=False)
    return trainer


@pytest.fixture(scope="module")
def uneven(splits) -> Splits:
    """The same frames, of which some lack labels and each counts as much as its weight says."""
    random = np.random.default_rng(0)

    def changed(frames) -> list:
        frames = [frame.clone() for frame in frames]
        for number, frame in enumerate(frames):
            frame.weight = torch.from_numpy(random.uniform(0.1, 5.0, size=(1, 3)))
            if number % 3 == 0:
                frame.forces[:] = torch.nan
            if number % 5 == 1:
                frame.energy[:] = torch.nan
        return frames

    return Splits("uneven", changed(splits.train), changed(splits.validation), splits.test)


@pytest.mark.slow
def test_missing_labels_and_weights_are_those_of_the_ordinary_loop(tmp_path, uneven, model, fit, trained_on):
    plain, captured = (
        fitted(tmp_path / str(captured), uneven, model, fit, trained_on, captured) for captured in (False, True)
    )
    for found, expected in zip(captured.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        assert found.isfinite().all()
    found, expected = rows(tmp_path / "True")[-1], rows(tmp_path / "False")[-1]
    for name in ("train/loss", "val/loss", "val/forces_mae_meV_per_A"):
        np.testing.assert_allclose(float(found[name]), float(expected[name]), rtol=1e-4)


def rows(folder) -> list[dict]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module", params=["adam", "soap"])
def stages(request, fit) -> FitOptions:
    return replace(fit, optimizer=request.param, schedule="cosine", stage_two_start=0.6)


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def trained_on(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def fits(tmp_path_factory, splits, model, stages, trained_on) -> dict:
    return {
        name: (folder := tmp_path_factory.mktemp(name), fitted(folder, splits, model, stages, trained_on, captured))
        for name, captured in {"plain": False, "captured": True}.items()
    }


def test_weights_are_those_of_the_ordinary_loop(fits):
    """With the average of the weights, clipped gradients, a schedule and weights of the loss that change."""
    (_, plain), (_, captured) = fits["plain"], fits["captured"]
    assert captured.global_step == plain.global_step == 18
    for found, expected in zip(captured.model.parameters(), plain.model.parameters(), strict=True):
        # The learning rate on the device is a float32.
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_log_is_that_of_the_ordinary_loop(fits):
    found, expected = rows(fits["captured"][0]), rows(fits["plain"][0])
    assert [list(row) for row in found] == [list(row) for row in expected]
    assert len(found) >= 3
    for row, other in zip(found, expected, strict=True):
        for name in set(row) - {"seconds"}:
            if other[name]:
                np.testing.assert_allclose(float(row[name]), float(other[name]), rtol=1e-4, err_msg=name)


def test_checkpoint_has_what_that_of_the_ordinary_loop_has(fits):
    """A training may go on with or without captured steps."""
    found, expected = (torch.load(fits[name][0] / "end.ckpt", weights_only=False) for name in ("captured", "plain"))
    assert found.keys() == expected.keys()
    assert found["state_dict"].keys() == expected["state_dict"].keys()
    (optimizer,), (other,) = found["optimizer_states"], expected["optimizer_states"]
    assert optimizer["param_groups"][0].keys() == other["param_groups"][0].keys()
    assert isinstance(optimizer["param_groups"][0]["lr"], float)
    assert optimizer["param_groups"][0]["lr"] == pytest.approx(other["param_groups"][0]["lr"])
    assert len(optimizer["state"]) == len(other["state"])
    assert all(state.get("step", 18) == 18 for state in optimizer["state"].values())
    assert found["lr_schedulers"][0]["last_epoch"] == expected["lr_schedulers"][0]["last_epoch"]


@pytest.mark.slow
def test_interrupted_training_goes_on_as_if_it_had_not_been(tmp_path, fits, splits, model, stages, trained_on):
    folder, whole = fits["captured"]
    resumed = fitted(tmp_path, splits, model, stages, trained_on, checkpoint=folder / "step=8.ckpt")
    assert resumed.global_step == whole.global_step
    for found, expected in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        if trained_on == "cpu":
            assert torch.equal(found, expected)
        else:  # additions of a GPU come in any order
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_accumulated_gradients_are_refused(tmp_path, splits, model, fit):
    with pytest.raises(ValueError, match="accumulate=2: a captured step takes a whole step's frames"):
        fitted(tmp_path, splits, model, fit, accumulate_grad_batches=2)


def test_mixed_precision_is_refused(tmp_path, splits, model, fit):
    with pytest.raises(ValueError, match="precision='bf16-mixed'"):
        fitted(tmp_path, splits, model, fit, precision="bf16-mixed")


@dataclass(frozen=True)
class Run:
    """What `captures` reads of the options of a run."""

    capture: bool | str = "auto"
    accelerator: str = "gpu"
    devices: int = 1
    nodes: int = 1


@pytest.fixture
def gpu(monkeypatch):
    """A GPU with more memory than the training frames take."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=10**9))


def test_a_gpu_captures_unless_told_not_to(gpu, splits, model, fit):
    assert captures(model, fit, Run(), splits.train)
    assert captures(model, fit, Run(capture=True), splits.train)
    assert not captures(model, fit, Run(capture=False), splits.train)


@pytest.mark.parametrize(
    ("run", "changes", "reason"),
    [
        (Run(accelerator="cpu"), {}, "need a GPU"),
        (Run(devices=2), {}, "devices=2 and nodes=1"),
        (Run(), {"accumulate": 4}, "accumulate=4"),
        (Run(), {"backend": "reference"}, "backend='reference'"),
    ],
    ids=str,
)
def test_what_cannot_be_captured_is_named(gpu, splits, model, fit, run, changes, reason):
    model, fit = (
        replace(options, **{name: value for name, value in changes.items() if hasattr(options, name)})
        for options in (model, fit)
    )
    assert not captures(model, fit, run, splits.train)
    with pytest.raises(ValueError, match=f"capture=True: .*{reason}"):
        captures(model, fit, replace(run, capture=True), splits.train)


def test_frames_that_fill_the_gpu_are_not_captured(gpu, splits, model, fit, monkeypatch):
    monkeypatch.setattr("train.captured_fit.LARGEST_PART_FOR_FRAMES", 1e-6)
    assert not captures(model, fit, Run(), splits.train)
    with pytest.raises(ValueError, match="the training frames take"):
        captures(model, fit, Run(capture=True), splits.train)
