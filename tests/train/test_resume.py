"""A training that is stopped and goes on ends with the weights of one that was not."""

import csv
import json
import shutil
from dataclasses import replace
from datetime import timedelta
from itertools import count

import pytest
import torch
from lightning.pytorch.callbacks import Timer

from train import checkpoints
from train.checkpoints import BEST, LAST
from train.cli import main, parse
from train.module import MONITOR, PotentialModule
from train.run import train as fit_potential

STEPS_AN_EPOCH = 10


class PowerCut(RuntimeError):
    pass


pytestmark = pytest.mark.usefixtures("no_plots")


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


def assert_same_weights(found, expected) -> None:
    """The weights, their average and what becomes of them in further steps."""
    one, other = read_state(found), read_state(expected)
    for key in ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers", "epoch"):
        if key in other:
            assert_same(one[key], other[key])
    assert one["global_step"] == other["global_step"] > 0


def assert_same_end(found, expected) -> None:
    """Weights, log and results."""
    assert_same_weights(found, expected)
    assert read_log(found) == read_log(expected)
    results = [json.loads((folder / "metrics.json").read_text()) for folder in (found, expected)]
    for name in ("test", "validation", "epochs", "steps"):
        assert results[0][name] == results[1][name]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, splits, model, fit, run):
    """The folder of a training that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    fit_potential(splits, folder, model, fit, run)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "time_between_epochs_kept", "kept"),
    [
        (STEPS_AN_EPOCH + 4, timedelta(0), STEPS_AN_EPOCH),
        (2 * STEPS_AN_EPOCH, timedelta(0), 2 * STEPS_AN_EPOCH),
        (2 * STEPS_AN_EPOCH, timedelta(minutes=5), STEPS_AN_EPOCH),
    ],
    ids=["mid-epoch", "epoch boundary", "an epoch without a checkpoint"],
)
def test_power_cut_changes_nothing(
    tmp_path, splits, model, fit, run, cut_after, whole, monkeypatch, steps, time_between_epochs_kept, kept
):
    monkeypatch.setattr(checkpoints, "TIME_BETWEEN_EPOCHS_KEPT", time_between_epochs_kept)
    cut_after(steps)
    with pytest.raises(PowerCut):
        fit_potential(splits, tmp_path, model, fit, run)
    assert not (tmp_path / "metrics.json").exists()
    assert read_state(tmp_path)["global_step"] == kept
    fit_potential(splits, tmp_path, model, fit, replace(run, resume=tmp_path))
    assert_same_end(tmp_path, whole)


@pytest.mark.slow
def test_power_cut_after_a_checkpoint_in_mid_epoch_changes_nothing(
    tmp_path, splits, model, fit, run, cut_after, whole, monkeypatch
):
    monkeypatch.setattr(checkpoints, "TIME_BETWEEN_CHECKPOINTS", timedelta(0))
    monkeypatch.setattr(checkpoints, "STEPS_BETWEEN_LOOKS", 1)
    cut_after(STEPS_AN_EPOCH + 4)
    with pytest.raises(PowerCut):
        fit_potential(splits, tmp_path, model, fit, run)
    assert read_state(tmp_path)["global_step"] == STEPS_AN_EPOCH + 4
    fit_potential(splits, tmp_path, model, fit, replace(run, resume=tmp_path))
    assert_same_weights(tmp_path, whole)


@pytest.mark.thorough
def test_power_cut_with_plateau_accumulation_and_a_worker_changes_nothing(tmp_path, splits, model, fit, run, cut_after):
    fit = replace(fit, schedule="plateau", plateau_patience=0, lr=0.5, accumulate=2, patience=5, ema_decay=0.0)
    run = replace(run, num_workers=1)
    folders = [tmp_path / name for name in ("whole", "cut")]
    for folder in folders:
        folder.mkdir()
    fit_potential(splits, folders[0], model, fit, run)
    cut_after(2 * STEPS_AN_EPOCH + 3)
    with pytest.raises(PowerCut):
        fit_potential(splits, folders[1], model, fit, run)
    fit_potential(splits, folders[1], model, fit, replace(run, resume=folders[1]))
    assert_same_end(folders[1], folders[0])
    assert read_state(folders[0])["global_step"] == 3 * STEPS_AN_EPOCH / 2
    assert read_state(folders[0])["lr_schedulers"][1]["last_epoch"] == 3  # the plateau was looked for in each


@pytest.mark.slow
def test_finished_run_goes_on_for_more_epochs(tmp_path, splits, model, fit, run):
    fit = replace(fit, schedule="constant")
    for name, epochs in (("whole", 3), ("extended", 2)):
        (tmp_path / name).mkdir()
        fit_potential(splits, tmp_path / name, model, replace(fit, max_epochs=epochs), run)
    fit_potential(splits, tmp_path / "extended", model, fit, replace(run, resume=tmp_path / "extended"))
    assert_same_end(tmp_path / "extended", tmp_path / "whole")


@pytest.mark.slow
def test_run_out_of_time_goes_on_with_more(tmp_path, splits, model, fit, run, monkeypatch):
    fit = replace(fit, schedule="constant")
    clock = count()  # seconds that pass with each look at it
    monkeypatch.setattr(Timer, "time_elapsed", lambda timer, stage=None: timer._offset + next(clock))
    for name, limit in (("whole", None), ("late", "00:00:00:20")):
        (tmp_path / name).mkdir()
        clock = count()
        fit_potential(splits, tmp_path / name, model, replace(fit, max_time=limit), run)
    early = read_state(tmp_path / "late")["global_step"]
    assert 0 < early < 3 * STEPS_AN_EPOCH
    assert early % STEPS_AN_EPOCH
    fit_potential(splits, tmp_path / "late", model, fit, replace(run, resume=tmp_path / "late"))
    assert_same_weights(tmp_path / "late", tmp_path / "whole")


@pytest.mark.slow
def test_time_of_all_sessions_counts(tmp_path, splits, model, fit, run):
    first = fit_potential(splits, tmp_path, model, replace(fit, max_epochs=1), run)["seconds"]
    run = replace(run, resume=tmp_path)
    idle = fit_potential(splits, tmp_path, model, replace(fit, max_epochs=1), run)
    assert idle["epochs"] == 1  # nothing was left to do, but results are written again
    assert fit_potential(splits, tmp_path, model, replace(fit, max_epochs=2), run)["seconds"] > first


@pytest.mark.slow
def test_an_end_that_is_over_is_refused(tmp_path, splits, model, fit, run):
    fit_potential(splits, tmp_path, model, replace(fit, max_epochs=2), run)
    run, before = replace(run, resume=tmp_path), (tmp_path / LAST).read_bytes()
    with pytest.raises(ValueError, match=r"max_epochs=1: the run has begun epoch 2 already, expected 2 or more"):
        fit_potential(splits, tmp_path, model, replace(fit, max_epochs=1), run)
    with pytest.raises(ValueError, match=r"max_time='00:00:00:00': the run has used 0:00:0. already"):
        fit_potential(splits, tmp_path, model, replace(fit, max_time="00:00:00:00"), run)
    assert (tmp_path / LAST).read_bytes() == before


@pytest.mark.slow
def test_a_run_that_is_out_of_its_time_writes_its_results_again(tmp_path, splits, model, fit, run):
    fit = replace(fit, max_epochs=100_000, max_time="00:00:00:01")
    first = fit_potential(splits, tmp_path, model, fit, run)
    (tmp_path / "metrics.json").unlink()
    assert fit_potential(splits, tmp_path, model, fit, replace(run, resume=tmp_path))["steps"] == first["steps"]
    assert (tmp_path / "metrics.json").exists()


@pytest.mark.slow
def test_run_folder_may_be_moved(tmp_path, splits, model, fit, run, cut_after):
    """The best checkpoint so far is that of the folder as it stands."""
    cut_after(2 * STEPS_AN_EPOCH)
    (tmp_path / "here").mkdir()
    with pytest.raises(PowerCut):
        fit_potential(splits, tmp_path / "here", model, fit, run)
    (tmp_path / "here").rename(tmp_path / "there")
    fit_potential(splits, tmp_path / "there", model, replace(fit, lr=0.0001), replace(run, resume=tmp_path / "there"))
    losses = [float(row["val/loss"]) for row in read_log(tmp_path / "there")]
    assert read_state(tmp_path / "there")["callbacks"]["Checkpoints"]["best_loss"] == pytest.approx(min(losses))
    best = torch.load(tmp_path / "there" / BEST, weights_only=False)
    assert best["epoch"] == losses.index(min(losses))
    assert not (tmp_path / "here").exists()


@pytest.mark.slow
def test_best_weights_are_written_although_worse_ones_were_validated_last(
    tmp_path, splits, model, fit, run, monkeypatch
):
    """Also those of an epoch that got no checkpoint of its own."""
    losses = iter([3.0, 1.0, 2.0, 4.0])
    log = PotentialModule.log

    def logged(module, name, value, **options):
        log(module, name, torch.tensor(next(losses)) if name == MONITOR else value, **options)

    monkeypatch.setattr(PotentialModule, "log", logged)
    validated = []
    monkeypatch.setattr(
        PotentialModule,
        "on_validation_epoch_start",
        lambda module: validated.append({name: value.clone() for name, value in module.state_dict().items()}),
    )
    fit_potential(splits, tmp_path, model, replace(fit, max_epochs=4), run)
    best = torch.load(tmp_path / BEST, weights_only=False)
    assert best["epoch"] == 1
    assert_same(dict(best["state_dict"]), validated[1])


@pytest.mark.slow
def test_other_training_frames_are_refused(tmp_path, splits, model, fit, run):
    fit_potential(splits, tmp_path, model, replace(fit, max_epochs=1), run)
    fewer = replace(splits, train=splits.train[:-3])
    with pytest.raises(ValueError, match="began with other training frames"):
        fit_potential(fewer, tmp_path, model, fit, replace(run, resume=tmp_path))


def test_stopped_by_hand_it_says_how_to_go_on(tmp_path, splits, model, fit, run, monkeypatch, capsys):
    def interrupted(module):
        if module.current_epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(PotentialModule, "on_train_epoch_start", interrupted)
    with pytest.raises(SystemExit):
        fit_potential(splits, tmp_path, model, fit, run)
    assert capsys.readouterr().err.strip().endswith(f"go on with --resume {tmp_path}")
    assert read_state(tmp_path)["global_step"] == STEPS_AN_EPOCH


@pytest.mark.parametrize("end", [("--max_epochs", "5"), ("--max_time", "00:00:00:00")])
def test_an_end_that_is_over_is_refused_before_anything_is_written(trained, tmp_path, end):
    """The run has done six epochs."""
    config = parse(["md17"])[2]
    (tmp_path / "config.yaml").write_text(config)
    shutil.copy(trained / LAST, tmp_path)
    with pytest.raises(ValueError, match=rf"^{end[0].removeprefix('--')}="):
        main(["md17", "--resume", str(tmp_path), *end])
    assert (tmp_path / "config.yaml").read_text() == config
