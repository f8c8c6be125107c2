from dataclasses import replace

import pytest
from lightning.pytorch.strategies import DDPStrategy

from train.averaging import ExponentialMovingAverage
from train.checkpoints import Checkpoints
from train.loop import Patience, fitting_trainer, strategy
from train.module import MONITOR
from train.schedule import training_timer


def callback(trainer, kind):
    return next((callback for callback in trainer.callbacks if isinstance(callback, kind)), None)


def test_options_reach_the_trainer(tmp_path, fit, run):
    fit = replace(fit, max_epochs=17, gradient_clip=0.25, max_time="00:00:02:05")
    trainer = fitting_trainer(tmp_path, fit, run)
    assert (trainer.max_epochs, trainer.gradient_clip_val) == (17, 0.25)
    assert training_timer(trainer).time_remaining() == 125.0
    assert callback(trainer, Checkpoints).monitor == MONITOR
    assert callback(trainer, Checkpoints).folder == tmp_path


def test_zero_switches_averaging_and_clipping_off(tmp_path, fit, run):
    assert callback(fitting_trainer(tmp_path, fit, run), ExponentialMovingAverage) is not None
    trainer = fitting_trainer(tmp_path, replace(fit, ema_decay=0.0, gradient_clip=0.0), run)
    assert callback(trainer, ExponentialMovingAverage) is None
    assert trainer.gradient_clip_val is None
    assert training_timer(trainer).time_remaining() is None


@pytest.mark.parametrize("progress", [True, False])
def test_progress_is_optional(tmp_path, fit, run, progress):
    trainer = fitting_trainer(tmp_path, fit, replace(run, progress=progress))
    (lines,) = [each for each in trainer.callbacks if type(each).__name__ == "ProgressLines"]  # there is no terminal
    assert lines.on_screen == progress


def test_patience_is_optional_and_may_change_when_a_run_goes_on(tmp_path, fit, run):
    assert callback(fitting_trainer(tmp_path, fit, run), Patience) is None
    before = callback(fitting_trainer(tmp_path, replace(fit, patience=3), run), Patience)
    before.wait_count = 3
    after = Patience(7)
    after.load_state_dict(before.state_dict())
    assert (after.patience, after.wait_count) == (7, 3)


@pytest.mark.parametrize(("devices", "nodes", "several"), [(1, 1, False), (2, 1, True), (1, 2, True)])
def test_several_devices_run_by_ddp(run, devices, nodes, several):
    assert isinstance(strategy(replace(run, devices=devices, nodes=nodes)), DDPStrategy) == several
