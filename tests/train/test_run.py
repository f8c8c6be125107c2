import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch_geometric.data import Batch

from pyg_cgconv.potential import Potential
from train.data import FrameDataModule, labels
from train.module import PotentialModule
from train.run import create_run_folder, open_run_folder, predicted_labels, train

pytestmark = pytest.mark.usefixtures("no_plots")


def read_column(path, name: str) -> list[float]:
    with open(path, newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, splits, model, fit, run):
    """Folder and metrics of one training, long enough to learn and rough enough to get worse now and then."""
    folder = tmp_path_factory.mktemp("run")
    return folder, train(splits, folder, model, replace(fit, max_epochs=10, lr=0.1), run)


@pytest.mark.slow
def test_run_folder_holds_everything(finished):
    folder, metrics = finished
    plots = {"parity.png", "learning_curve.png"}
    files = {"potential.pt", "best.ckpt", "last.ckpt", "metrics.csv", "metrics.json"} | plots
    assert files <= {path.name for path in folder.iterdir()}
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    for plot in plots:
        assert (folder / plot).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_metrics_say_how_much_was_done(finished, splits):
    _, metrics = finished
    assert (metrics["epochs"], metrics["steps"]) == (10, 100)
    assert metrics["seconds"] > 0
    assert metrics["frames"] == {"train": 40, "validation": 8, "test": 8}


@pytest.mark.slow
def test_baseline_is_the_mean_absolute_force(finished, splits):
    _, metrics = finished
    forces = 1000 * np.abs(np.concatenate([frame.forces.numpy() for frame in splits.test])).mean()
    assert metrics["baseline"]["forces_mae_meV_per_A"] == pytest.approx(forces)
    error = metrics["test"]["forces_mae_meV_per_A"]
    assert metrics["test"]["forces_mae_percent"] == pytest.approx(100 * error / forces)


@pytest.mark.slow
def test_loss_goes_down_and_beats_the_baseline(finished):
    folder, metrics = finished
    losses = read_column(folder / "metrics.csv", "train/loss")
    assert len(losses) == 10
    assert losses[-1] < 0.3 * losses[0]
    assert metrics["test"]["forces_mae_percent"] < 60


@pytest.mark.slow
def test_metrics_are_those_of_the_best_epoch(finished):
    folder, metrics = finished
    loss, error = (read_column(folder / "metrics.csv", f"val/{name}") for name in ("loss", "forces_mae_meV_per_A"))
    assert metrics["validation"]["forces_mae_meV_per_A"] == pytest.approx(error[int(np.argmin(loss))], rel=1e-4)


@pytest.mark.slow
def test_best_checkpoint_gives_the_reported_errors(finished, splits, fit):
    folder, metrics = finished
    module = PotentialModule.load_from_checkpoint(folder / "best.ckpt")
    _, loader = FrameDataModule(splits, fit.batch_size).predict_dataloader()
    test = predicted_labels(module.eval(), loader)
    forces = 1000 * np.abs(test.forces - labels(splits.test).forces).mean()
    assert forces == pytest.approx(metrics["test"]["forces_mae_meV_per_A"], rel=1e-12)


@pytest.mark.slow
def test_saved_potential_gives_the_reported_errors(finished, splits):
    folder, metrics = finished
    forces = Potential.load(folder / "potential.pt")(Batch.from_data_list(list(splits.test)))["forces"]
    error = 1000 * np.abs(forces.numpy() - labels(splits.test).forces).mean()
    assert error == pytest.approx(metrics["test"]["forces_mae_meV_per_A"], rel=1e-4)


@pytest.mark.slow
def test_checkpoints_hold_the_averaged_weights_and_those_to_go_on_from(finished):
    folder, _ = finished
    checkpoint = torch.load(folder / "last.ckpt", weights_only=False)
    average, current = checkpoint["state_dict"], checkpoint["current_model_state"]
    assert average.keys() == current.keys()
    assert any(not torch.equal(average[name], current[name]) for name in average)


@pytest.mark.slow
def test_equal_seeds_give_equal_weights_and_others_do_not(tmp_path, splits, model, fit, run):
    weights = []
    for number, seed in enumerate((1, 1, 2)):
        (tmp_path / str(number)).mkdir()
        train(splits, tmp_path / str(number), model, replace(fit, max_epochs=1), replace(run, seed=seed))
        weights.append(torch.load(tmp_path / str(number) / "last.ckpt", weights_only=False)["state_dict"])
    learnt = [name for name, value in weights[0].items() if not torch.equal(value, weights[2][name])]
    assert learnt
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.slow
def test_time_limit_ends_the_training_with_results(tmp_path, splits, model, fit, run):
    metrics = train(splits, tmp_path, model, replace(fit, max_epochs=100_000, max_time="00:00:00:01"), run)
    assert 1.0 <= metrics["seconds"] < 10.0
    assert metrics["epochs"] < 100_000
    assert read_column(tmp_path / "metrics.csv", "lr")[-1] < 0.1 * fit.lr  # the cosine ended with the time


@pytest.mark.slow
def test_plateau_without_averaging_and_clipping_in_float64(tmp_path, splits, model, fit, run):
    fit = replace(fit, schedule="plateau", ema_decay=0.0, gradient_clip=0.0, max_epochs=2)
    metrics = train(splits, tmp_path, model, fit, replace(run, dtype="float64"))
    assert metrics["dtype"] == "float64"
    assert read_column(tmp_path / "metrics.csv", "lr") == pytest.approx([fit.lr, fit.lr])
    state = torch.load(tmp_path / "best.ckpt", weights_only=False)["state_dict"]
    assert torch.float32 not in {value.dtype for value in state.values()}


@pytest.mark.slow
def test_diverged_training_is_named(tmp_path, splits, model, fit, run):
    with pytest.raises(ValueError, match="try an lr below"):
        train(splits, tmp_path, model, replace(fit, lr=1e30, gradient_clip=0.0), run)


def test_run_folder_is_opened_with_its_configuration(tmp_path, run):
    folder = open_run_folder(replace(run, run_dir=tmp_path / "new"), "md17", "ethanol", "lr: 1\n")
    assert (folder / "config.yaml").read_text() == "lr: 1\n"
    again = open_run_folder(replace(run, resume=folder), "md17", "ethanol", "lr: 1\nmax_epochs: 9\n")
    assert again == folder
    assert (folder / "config.yaml").read_text() == "lr: 1\nmax_epochs: 9\n"


def test_only_the_first_process_makes_a_run_folder(tmp_path, run, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    open_run_folder(replace(run, run_dir=tmp_path / "new"), "md17", "ethanol", "lr: 1\n")
    assert not (tmp_path / "new").exists()


def test_folder_of_an_earlier_run_is_refused(tmp_path):
    assert create_run_folder(tmp_path / "new", "md17", "ethanol").is_dir()
    (tmp_path / "new" / "config.yaml").touch()
    with pytest.raises(ValueError, match="holds a run already"):
        create_run_folder(tmp_path / "new", "md17", "ethanol")


@pytest.mark.slow
def test_training_ends_when_the_validation_loss_stalls(tmp_path, splits, model, fit, run):
    """With a learning rate of almost nothing, the averaged weights stay where they are to six digits."""
    fit = replace(fit, lr=1e-30, patience=2, max_epochs=50)
    assert train(splits, tmp_path, model, fit, run)["epochs"] == 3


@pytest.mark.slow
def test_accumulated_batches_make_the_step_of_a_large_one(tmp_path, splits, model, fit, run):
    weights = []
    for accumulate in (1, 2):
        folder = tmp_path / str(accumulate)
        folder.mkdir()
        accumulated = replace(fit, batch_size=8 // accumulate, accumulate=accumulate)
        metrics = train(splits, folder, model, accumulated, replace(run, dtype="float64"))
        assert metrics["steps"] == 3 * 40 / 8
        weights.append(torch.load(folder / "last.ckpt", weights_only=False)["current_model_state"])
    torch.testing.assert_close(*weights, rtol=1e-9, atol=1e-11)


@pytest.mark.slow
def test_second_stage_changes_only_what_comes_after_it(tmp_path, splits, model, fit, run):
    logs = []
    for number, start in enumerate((1.0, 0.5)):
        folder = tmp_path / str(number)
        folder.mkdir()
        train(splits, folder, model, replace(fit, stage_two_start=start, max_epochs=4), run)
        logs.append(read_column(folder / "metrics.csv", "val/forces_loss"))
    assert logs[0][:2] == logs[1][:2]
    assert logs[0][2] != logs[1][2]


@pytest.mark.slow
def test_tensorboard_gets_what_the_csv_log_gets(tmp_path, splits, model, fit, run):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(splits, tmp_path, model, replace(fit, max_epochs=2), replace(run, tensorboard=True))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for name in ("train/loss", "val/loss", "lr"):
        logged = [event.value for event in events.Scalars(name)]
        assert logged == pytest.approx(read_column(tmp_path / "metrics.csv", name), rel=1e-6)
