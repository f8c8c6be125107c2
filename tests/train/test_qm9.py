"""`python -m train qm9` on the molecules that come with the project."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from datasets import QM9Sample, qm9_files
from datasets.qm9 import USUAL_TRAIN, USUAL_VALIDATION
from train import qm9
from train.cli import main
from train.options import FitOptions, ModelOptions, RunOptions
from train.qm9 import PropertyFitOptions, QM9Options, molecule_counts, read_splits
from train.qm9_run import Property, train_property
from train.trained import load_trained

from ..datasets.qm9_molecules import write_raw
from .conftest import CUTOFF

TINY = (
    "--channels 4 --lmax 1 --layers 1 --radial_hidden [8] --batch_size 16 --max_epochs 2 --device cpu --progress false "
    f"--cutoff {CUTOFF} --train_size 64 --val_size 16 --test_size 16"
)
MODEL = ModelOptions(cutoff=CUTOFF, channels=4, lmax=1, layers=1, radial_hidden=(8,))
FIT = FitOptions(loss="huber", huber_delta=0.1, batch_size=16, lr=0.02, warmup_steps=5, ema_decay=0.9, max_epochs=8)
RUN = RunOptions(device="cpu", progress=False)


pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture(scope="module")
def splits():
    return read_splits(QM9Options(train_size=256, val_size=32, test_size=64), CUTOFF)


@pytest.fixture(scope="module")
def few(splits):
    """For what does not depend on how much is learned."""
    return replace(splits, train=splits.train[:64])


@pytest.fixture(scope="module")
def commanded(tmp_path_factory):
    """Folder and metrics of `python -m train qm9 --target homo`."""
    folder = tmp_path_factory.mktemp("run")
    main(["qm9", "--target", "homo", "--run_dir", str(folder), *TINY.split()])
    return folder, json.loads((folder / "metrics.json").read_text())


@pytest.mark.slow
def test_command_writes_a_run_folder(commanded):
    folder, metrics = commanded
    assert metrics["frames"] == {"train": 64, "validation": 16, "test": 16}
    assert (metrics["target"], metrics["epochs"], metrics["steps"]) == ("homo", 2, 8)
    assert metrics["seconds"] > 0
    assert metrics["test"]["unit"] == "meV"
    assert {"parameters", "device", "baseline", "validation", "versions"} <= metrics.keys()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert (config["target"], config["channels"], config["loss"], config["preset"]) == ("homo", 4, "huber", "small")
    for plot in ("parity.png", "learning_curve.png"):
        assert (folder / plot).read_bytes().startswith(b"\x89PNG")
    assert (folder / "metrics.csv").read_text().count("\n") == 3


@pytest.mark.slow
def test_the_model_of_a_property_is_no_potential(commanded):
    with pytest.raises(ValueError, match="is not the checkpoint of a potential"):
        load_trained(commanded[0])


@pytest.mark.slow
@pytest.mark.parametrize("target", ["U0", "r2"])
def test_training_beats_the_guess_from_composition(tmp_path, splits, target):
    metrics = train_property(Property.of_qm9(target), splits, tmp_path, MODEL, FIT, RUN)
    assert metrics["test"]["mae"] < 0.9 * metrics["baseline"]["mae"]
    assert metrics["test"]["unit"] == {"U0": "meV", "r2": "a0^2"}[target]


@pytest.mark.slow
def test_errors_are_those_of_the_best_epoch(tmp_path, few):
    metrics = train_property(Property.of_qm9("alpha"), few, tmp_path, MODEL, replace(FIT, max_epochs=3), RUN)
    log = np.genfromtxt(tmp_path / "metrics.csv", delimiter=",", names=True, deletechars="")
    best = int(np.argmin(log["val/loss"]))
    assert metrics["validation"]["mae"] == pytest.approx(log["val/mae"][best], rel=1e-5)


@pytest.mark.slow
def test_baseline_is_a_fit_of_numbers_of_atoms(tmp_path, splits):
    metrics = train_property(Property.of_qm9("Cv"), splits, tmp_path, MODEL, replace(FIT, max_epochs=1), RUN)
    column = QM9Sample.target_index("Cv")

    def table(molecules):
        counts = np.stack([np.bincount(m.z.numpy(), minlength=10) for m in molecules])
        return np.column_stack([counts, np.ones(len(molecules))]), np.array([m.y[0, column].item() for m in molecules])

    counts, values = table(splits.train)
    fit = np.linalg.pinv(counts) @ values
    counts, values = table(splits.test)
    assert metrics["baseline"]["mae"] == pytest.approx(np.abs(counts @ fit - values).mean(), rel=1e-6)


@pytest.mark.slow
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(tmp_path, few):
    learned, fit = Property.of_qm9("U0"), replace(FIT, max_epochs=2, schedule="constant")
    ends = []
    for number, epochs in enumerate((2, 1)):
        folder = tmp_path / str(number)
        folder.mkdir()
        train_property(learned, few, folder, MODEL, replace(fit, max_epochs=epochs), RUN)
        ends.append(folder)
    train_property(learned, few, ends[1], MODEL, fit, replace(RUN, resume=ends[1]))
    one, other = (torch.load(folder / "last.ckpt", weights_only=False)["state_dict"] for folder in ends)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_is_not_resumed_with_other_molecules(tmp_path, few):
    learned, fit = Property.of_qm9("U0"), replace(FIT, max_epochs=1)
    train_property(learned, few, tmp_path, MODEL, fit, RUN)
    fewer = replace(few, train=few.train[1:])
    with pytest.raises(ValueError, match="the run began with other training frames"):
        train_property(learned, fewer, tmp_path, MODEL, fit, replace(RUN, resume=tmp_path))


def test_embedded_molecules_are_all_used_a_tenth_each_to_validate_and_test():
    assert molecule_counts(QM9Options(), 5000) == (4000, 500, 500)


def test_sizes_of_the_whole_set_are_the_usual_ones(tmp_path):
    assert molecule_counts(QM9Options(root=tmp_path), 130_831) == (USUAL_TRAIN, USUAL_VALIDATION, 10_831)


@pytest.mark.parametrize("sizes", [{"train_size": 4990, "val_size": 10}, {"test_size": 4500}])
def test_sizes_beyond_the_molecules_are_named(sizes):
    with pytest.raises(ValueError, match=r"train_size=\d+, val_size=\d+ and test_size=\d+: there are 5000 molecules"):
        molecule_counts(QM9Options(**sizes), 5000)


def test_a_cache_that_would_not_be_used_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"cache=.*: neighbour lists of the embedded molecules .* give --root"):
        QM9Options(cache=tmp_path)


def test_published_files_are_read_with_their_neighbour_lists_kept(tmp_path, monkeypatch):
    for name, count in (("NUM_PUBLISHED", 3), ("NUM_UNCHARACTERIZED", 1)):
        monkeypatch.setattr(qm9_files, name, count)
    write_raw(tmp_path)
    with pytest.raises(ValueError, match="train_size=1, val_size=1 and test_size=1: there are 2 molecules"):
        read_splits(QM9Options(root=tmp_path, train_size=1, val_size=1, test_size=1), CUTOFF)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    monkeypatch.setattr(qm9, "molecule_counts", lambda options, available: (1, 1, 0))
    splits = read_splits(QM9Options(root=tmp_path), CUTOFF)
    assert sorted(part[0].number.item() for part in (splits.train, splits.validation)) == [1, 3]
    assert all(
        part[0].num_edges == part[0].num_nodes * (part[0].num_nodes - 1) for part in (splits.train, splits.validation)
    )


def test_a_size_of_none_is_named():
    with pytest.raises(ValueError, match="val_size=0: expected a number above 0"):
        QM9Options(val_size=0)


def test_random_split_follows_its_seed():
    def numbers(seed):
        options = QM9Options(split_seed=seed, train_size=20, val_size=5, test_size=10)
        return [molecule.number.item() for molecule in read_splits(options, CUTOFF).test]

    assert numbers(0) == numbers(0)
    assert numbers(0) != numbers(1)


def test_fit_options_are_checked():
    with pytest.raises(ValueError, match="lr=0"):
        PropertyFitOptions(lr=0.0)
    assert PropertyFitOptions(huber_delta=0.3).fit_options().huber_delta == 0.3
