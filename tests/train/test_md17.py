"""`python -m train md17` on files of the published form, which hold a molecule of springs."""

import json

import numpy as np
import pytest
import torch
import yaml

from datasets import MD17, EthanolPBE
from datasets.units import KCAL_PER_MOL
from train.cli import main
from train.md17 import MD17Options, divide_published, read_splits

from .conftest import CUTOFF, NUMBERS, spring_frames

FRAMES = 60
TINY = (
    "--channels 4 --lmax 1 --layers 1 --radial_hidden [8] --batch_size 8 --max_epochs 2 --device cpu --progress false"
)


@pytest.fixture
def published(tmp_path):
    """A folder as rMD17 is published: kcal/mol, and the first split."""
    frames = spring_frames(FRAMES)
    (tmp_path / "npz_data").mkdir()
    np.savez(
        tmp_path / "npz_data" / "rmd17_ethanol.npz",
        nuclear_charges=NUMBERS.astype(np.uint8),
        coords=np.stack([frame.pos.numpy() for frame in frames]),
        energies=np.array([frame.energy.item() for frame in frames]) / KCAL_PER_MOL,
        forces=np.stack([frame.forces.numpy() for frame in frames]) / KCAL_PER_MOL,
    )
    (tmp_path / "splits").mkdir()
    np.savetxt(tmp_path / "splits" / "index_train_01.csv", np.arange(40), fmt="%d")
    np.savetxt(tmp_path / "splits" / "index_test_01.csv", np.arange(40, 60), fmt="%d")
    return tmp_path


def test_command_writes_a_run_folder_and_prints_its_errors(published, capsys):
    sizes = "--train_size 32 --val_size 8 --test_size 16"
    folder = published / "run"
    main(["md17", "--root", str(published), "--run_dir", str(folder), *f"{sizes} {TINY}".split()])
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["frames"] == {"train": 32, "validation": 8, "test": 16}
    assert {"seconds", "epochs", "test", "baseline", "parameters", "device", "versions"} <= metrics.keys()
    assert {"energy_mae_meV", "forces_mae_meV_per_A"} <= metrics["test"].keys()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert (config["batch_size"], config["lmax"], config["preset"]) == (8, 1, "small")
    files = {path.name for path in folder.iterdir()}
    assert {"best.ckpt", "last.ckpt", "metrics.csv", "parity.png", "learning_curve.png"} <= files
    printed = capsys.readouterr().out
    assert f"{metrics['test']['energy_mae_meV']:.2f} meV" in printed
    assert f"{metrics['test']['forces_mae_meV_per_A']:.2f} meV/Å" in printed
    assert f"{metrics['baseline']['forces_mae_meV_per_A']:.2f} meV/Å" in printed
    assert "100.0 %" in printed


def test_a_second_run_does_not_overwrite_the_first(published):
    (published / "run").mkdir()
    (published / "run" / "config.yaml").touch()
    sizes = "--train_size 32 --val_size 8 --test_size 16"
    with pytest.raises(ValueError, match="holds a run already"):
        main(["md17", "--root", str(published), "--run_dir", str(published / "run"), *f"{sizes} {TINY}".split()])


def test_published_split_keeps_train_and_test_apart(published):
    options = MD17Options(root=published, train_size=30, val_size=10, test_size=20)
    splits = read_splits(options, CUTOFF)
    dataset = MD17(published)
    learnt = sorted(frame.energy.item() for frame in (*splits.train, *splits.validation))
    assert learnt == sorted(dataset[i].energy.item() for i in range(40))
    assert [frame.energy.item() for frame in splits.test] == [dataset[i].energy.item() for i in range(40, 60)]
    assert all(frame.num_edges for frame in splits.train)


def test_random_split_follows_its_seed(published):
    def test_energies(seed: int) -> list[float]:
        options = MD17Options(root=published, split=0, split_seed=seed, train_size=30, val_size=10, test_size=20)
        return [frame.energy.item() for frame in read_splits(options, CUTOFF).test]

    assert test_energies(0) == test_energies(0)
    assert test_energies(0) != test_energies(1)


@pytest.fixture
def coupled_cluster(tmp_path):
    """A folder as the coupled-cluster sets are published: kcal/mol, 60 training frames and 10 test frames."""
    for part, frames in (("train", spring_frames(60, seed=1)), ("test", spring_frames(10, seed=2))):
        np.savez(
            tmp_path / f"ethanol_ccsd_t-{part}.npz",
            z=NUMBERS.astype(np.uint8),
            R=np.stack([frame.pos.numpy() for frame in frames]),
            E=np.array([[frame.energy.item()] for frame in frames]) / KCAL_PER_MOL,
            F=np.stack([frame.forces.numpy() for frame in frames]) / KCAL_PER_MOL,
        )
    return tmp_path


def energies(frames) -> list[float]:
    return sorted(frame.energy.item() for frame in frames)


def test_coupled_cluster_has_its_published_training_and_test_frames(coupled_cluster):
    splits = read_splits(MD17Options(root=coupled_cluster, reference="ccsd"), CUTOFF)
    assert splits.name == "ethanol (CCSD(T))"
    assert splits.sizes() == {"train": 10, "validation": 50, "test": 10}
    assert energies([*splits.train, *splits.validation]) == pytest.approx(energies(spring_frames(60, seed=1)))
    assert energies(splits.test) == pytest.approx(energies(spring_frames(10, seed=2)))


def test_coupled_cluster_can_be_drawn_at_random(coupled_cluster):
    options = MD17Options(root=coupled_cluster, reference="ccsd", split=0)
    splits = read_splits(options, CUTOFF)
    assert splits.sizes() == {"train": 10, "validation": 50, "test": 10}
    assert energies(splits.test) != pytest.approx(energies(spring_frames(10, seed=2)))


@pytest.mark.slow
def test_command_trains_on_coupled_cluster(coupled_cluster, no_plots):
    folder = coupled_cluster / "run"
    sizes = "--train_size 16 --val_size 8 --test_size 8 --max_epochs 1"
    main(
        [
            "md17",
            "--root",
            str(coupled_cluster),
            "--reference",
            "ccsd",
            "--run_dir",
            str(folder),
            *TINY.split(),
            *sizes.split(),
        ]
    )
    assert json.loads((folder / "metrics.json").read_text())["data"] == "ethanol (CCSD(T))"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"root": None}, "reference='ccsd': the embedded frames are of DFT"),
        ({"revised": False}, "revised=False: it chooses among sets of DFT"),
        ({"split": 1}, "split=1: frames of coupled cluster have one published split"),
    ],
)
def test_what_coupled_cluster_has_not_is_named(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        MD17Options(**{"root": tmp_path, "reference": "ccsd", **options})


@pytest.mark.parametrize(
    ("train", "val", "test", "message"),
    [
        (35, 6, 20, "the published split has 40 frames for both"),
        (30, 5, 21, "the published split has 20 test frames"),
    ],
)
def test_sizes_beyond_the_published_split_are_named(train, val, test, message):
    with pytest.raises(ValueError, match=message):
        divide_published(torch.arange(40), torch.arange(40, 60), train, val, test, seed=0)


def test_sizes_beyond_the_files_are_named(published):
    options = MD17Options(root=published, split=0, train_size=50, val_size=10, test_size=10)
    with pytest.raises(ValueError, match="60"):
        read_splits(options, CUTOFF)


def test_unknown_molecule_and_missing_files_are_named(published):
    with pytest.raises(ValueError, match="molecule"):
        read_splits(MD17Options(root=published, molecule="unobtainium"), CUTOFF)
    with pytest.raises(FileNotFoundError, match="splits"):
        read_splits(MD17Options(root=published, split=3), CUTOFF)


@pytest.mark.slow
def test_embedded_frames_are_all_used_a_tenth_each_to_validate_and_test():
    splits = read_splits(MD17Options(), CUTOFF)
    held_out = len(EthanolPBE()) // 10
    assert splits.sizes() == {"train": len(EthanolPBE()) - 2 * held_out, "validation": held_out, "test": held_out}
    assert splits.train[0].z.bincount().tolist() == [0, 6, 0, 0, 0, 0, 2, 0, 1]
