"""Frames with different labels in one file, and frames that count more than others, from the file to the errors."""

import json

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import read, write
from lightning.pytorch import Trainer
from torch_geometric.data import Batch

from pyg_cgconv import ASECalculator
from train.cli import main
from train.data import Splits
from train.frames import FramesOptions, read_splits
from train.module import new_module
from train.options import FitOptions
from train.run import warn_of_idle_weights
from train.statistics import collect_statistics

from .test_frames import CUTOFF, TINY, crystals

pytestmark = pytest.mark.usefixtures("no_plots")

LACKING = {3: ["forces"], 4: ["stress"], 5: ["energy"], 7: ["forces", "stress"], 9: ["forces"]}


def mixed(count: int = 12, seed: int = 0) -> list[Atoms]:
    """Crystals of one and of eight atoms, of which some lack labels. Those of eight lack forces: one needs none."""
    images = crystals(count, seed)
    for number, atoms in enumerate(images):
        for name in LACKING.get(number % 10, []):
            del atoms.calc.results[name]
    return images


def written(path, images) -> str:
    write(path, images)
    return str(path)


def all_of(splits: Splits) -> list:
    return [*splits.train, *splits.validation, *splits.test]


def by_place(images, splits: Splits) -> list:
    """The frames of ``splits`` in the order of ``images``."""
    frames = all_of(splits)
    found = [min(frames, key=lambda f: abs(f.pos.sum().item() - atoms.positions.sum())) for atoms in images]
    assert len({id(frame) for frame in found}) == len(images)
    return found


# === missing labels ===


def test_a_weight_without_labels_is_named():
    with pytest.warns(UserWarning, match=r"stress_weight=3.0: it has no effect, as no training frame has such a label"):
        warn_of_idle_weights(FitOptions(energy_weight=2.0, stress_weight=3.0, dipole_weight=0.0), ["energy", "forces"])


def loss_by_hand(module, images: list[Atoms], weights: np.ndarray, frames: list) -> float:
    """With loops and what ASE reads; ``weights`` (frames, 3)."""
    module.eval()
    sigma, terms = module.force_scale, {"energy": [], "forces": [], "stress": []}
    for atoms, frame, weight in zip(images, frames, weights, strict=True):
        predicted = module(Batch.from_data_list([frame]))
        predicted = {name: value.detach().double().numpy() for name, value in predicted.items()}
        held = atoms.calc.results
        if "energy" in held:
            terms["energy"] += [weight[0] * ((predicted["energy"][0] - held["energy"]) / len(atoms) / sigma) ** 2]
        if "forces" in held:
            terms["forces"] += list(weight[1] * ((predicted["forces"] - held["forces"]) / sigma).ravel() ** 2)
        if "stress" in held:
            error = (predicted["stress"][0] - atoms.get_stress(voigt=False)) * atoms.get_volume() / len(atoms) / sigma
            terms["stress"] += list(weight[2] * error.ravel() ** 2)
    factors = module.loss_weights(1.0)
    return sum(factors[name] * np.mean(term) for name, term in terms.items())


def module_and_loss(splits: Splits, model, fit, frames) -> tuple:
    module = new_module(model, fit, collect_statistics(splits.train), "float64", ("energy", "forces", "stress"))
    module.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    loss = module.loss(Batch.from_data_list(frames), module.loss_weights(1.0))
    loss.backward()
    return module, loss.item()


@pytest.mark.slow
def test_the_loss_is_the_mean_over_the_labels_that_there_are(tmp_path, model, fit):
    images = mixed()
    splits = read_splits(FramesOptions(written(tmp_path / "mixed.xyz", images)), CUTOFF)
    images = read(tmp_path / "mixed.xyz", ":")
    frames = by_place(images, splits)
    module, loss = module_and_loss(splits, model, fit, frames)
    assert loss == pytest.approx(loss_by_hand(module, images, np.ones((12, 3)), frames), rel=1e-6)
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters() if parameter.grad is not None)


@pytest.mark.slow
def test_a_training_counts_what_there_is(tmp_path, capsys):
    """The printed and written errors are those that ASE and numpy give of the labels that are there."""
    train, test = written(tmp_path / "mixed.xyz", mixed(20)), written(tmp_path / "test.xyz", mixed(10, seed=3))
    folder = tmp_path / "run"
    metrics = main(["frames", "--train_file", train, "--test_file", test, "--run_dir", str(folder), *TINY.split()])
    printed = capsys.readouterr().out
    assert "test: energy: 9 of 10 frames, forces: 7 of 10 frames, stress: 8 of 10 frames" in printed
    assert metrics["labels"]["test"] == {"energy": 9, "forces": 7, "stress": 8}
    assert metrics["labels"]["train"]["energy"] + metrics["labels"]["validation"]["energy"] == 18
    calculator = ASECalculator(folder / "potential.pt")
    errors: dict[str, list] = {"energy": [], "forces": [], "stress": []}
    for reference in read(test, ":"):
        atoms = reference.copy()
        atoms.calc = calculator
        for name in errors:
            if name in reference.calc.results:
                full = {"voigt": False} if name == "stress" else {}
                get = {"energy": "get_potential_energy", "forces": "get_forces", "stress": "get_stress"}[name]
                errors[name].append(np.ravel(getattr(atoms, get)(**full) - getattr(reference, get)(**full)))
    for name, unit in (("energy", "meV"), ("forces", "meV_per_A"), ("stress", "meV_per_A3")):
        of_all = 1000 * np.concatenate(errors[name])
        assert metrics["test"][f"{name}_mae_{unit}"] == pytest.approx(np.abs(of_all).mean(), rel=1e-3)
        assert metrics["test"][f"{name}_rmse_{unit}"] == pytest.approx(np.sqrt((of_all**2).mean()), rel=1e-3)
    evaluated = main(["evaluate", str(folder), "--data", test, "--run_dir", str(tmp_path / "e"), "--device", "cpu"])
    for name, value in evaluated["errors"].items():
        if not isinstance(value, dict):
            assert value == pytest.approx(metrics["test"][name], rel=1e-4)
    json.dumps(metrics, allow_nan=False)
    main(["predict", str(folder), "--data", test, "--output", str(tmp_path / "predicted.xyz"), "--device", "cpu"])
    for reference, predicted in zip(read(test, ":"), read(tmp_path / "predicted.xyz", ":"), strict=True):
        kept = {name for name in errors if f"ref_{name}" in predicted.info | predicted.arrays}
        assert kept == reference.calc.results.keys() & errors.keys()
        assert errors.keys() <= predicted.calc.results.keys()


def test_a_file_may_have_energies_only_beside_others(tmp_path):
    bare = crystals(6, seed=4)
    for atoms in bare:
        del atoms.calc.results["forces"], atoms.calc.results["stress"]
    files = [written(tmp_path / "whole.xyz", crystals(6)), written(tmp_path / "bare.xyz", bare)]
    frames = all_of(read_splits(FramesOptions(files), CUTOFF))
    assert sum(frame.forces.isnan().all().item() for frame in frames) == 3  # of eight atoms
    assert not any(frame.energy.isnan().any() for frame in frames)


def test_statistics_are_of_the_labels_that_there_are(tmp_path):
    """The same as of files in which the frames that lack the label are left out."""
    splits = read_splits(FramesOptions(written(tmp_path / "mixed.xyz", mixed(20))), CUTOFF)
    found = collect_statistics(splits.train)
    forces = np.concatenate([f.forces.numpy().ravel() for f in splits.train if not f.forces.isnan().any()])
    assert found.scale == pytest.approx(np.sqrt((forces**2).mean()))
    with_energy = [frame for frame in splits.train if not frame.energy.isnan().any()]
    atoms, energy = (
        np.array([get(f) for f in with_energy]) for get in (lambda f: f.num_nodes, lambda f: f.energy.item())
    )
    assert found.shift[0] == pytest.approx((atoms * energy).sum() / (atoms**2).sum())


@pytest.mark.slow
def test_a_rare_label_is_among_the_validation_frames(tmp_path):
    images = crystals(30)
    for atoms in images[2:]:
        del atoms.calc.results["stress"]
    path = written(tmp_path / "rare.xyz", images)
    for seed in range(4):
        splits = read_splits(FramesOptions(path, split_seed=seed), CUTOFF)
        assert not all(frame.stress.isnan().all() for frame in splits.validation)


def test_training_frames_without_any_energy_are_named(tmp_path):
    images = crystals(8)
    for atoms in images[:6]:
        del atoms.calc.results["energy"]
    files = [written(tmp_path / f"{n}.xyz", part) for n, part in enumerate((images[:6], images[6:]))]
    command = ["frames", "--train_file", files[0], "--test_file", files[1], "--run_dir", str(tmp_path / "run")]
    with pytest.raises(ValueError, match=r"energy: none of the 5 training frames has one.*a weight above 0"):
        main([*command, *TINY.split()])


def test_an_isolated_atom_without_an_energy_is_named(tmp_path):
    atom = Atoms("Cu", cell=[20] * 3, pbc=True)
    with pytest.raises(ValueError, match=r"frame 4 is an isolated atom of Cu without an energy"):
        read_splits(FramesOptions(written(tmp_path / "a.xyz", [*crystals(4), atom])), CUTOFF)


# === weights ===


def weighted(images: list[Atoms], rows: dict[int, dict]) -> list[Atoms]:
    for number, info in rows.items():
        images[number].info.update(info)
    return images


@pytest.mark.slow
def test_the_loss_has_the_weights_of_file_and_config_type(tmp_path, model, fit):
    images = weighted(
        mixed(),
        {
            0: {"config_weight": 3.0},
            1: {"config_energy_weight": 2.0, "config_forces_weight": 0.5, "config_stress_weight": 4.0},
            2: {"config_weight": 2.0, "config_virials_weight": 0.25},
            6: {"config_type": "surface"},
            8: {"config_type": "surface", "config_weight": 0.5},
        },
    )
    path = written(tmp_path / "weights.xyz", images)
    splits = read_splits(FramesOptions(path, config_type_weights={"surface": 10.0}), CUTOFF)
    frames, images = by_place(images, splits), read(path, ":")
    weights = np.ones((12, 3))
    weights[0], weights[1], weights[2] = 3, (2, 0.5, 4), (2, 2, 0.5)
    weights[6], weights[8] = 10, 5
    module, loss = module_and_loss(splits, model, fit, frames)
    assert loss == pytest.approx(loss_by_hand(module, images, weights, frames), rel=1e-6)
    assert loss != pytest.approx(loss_by_hand(module, images, np.ones((12, 3)), frames), rel=1e-2)


def test_a_weight_of_zero_is_a_missing_label(tmp_path):
    """MACE's files mark energies that mean nothing so."""
    images = weighted(crystals(6), {2: {"config_energy_weight": 0.0}, 3: {"config_type": "bad"}})
    path = written(tmp_path / "zero.xyz", images)
    splits = read_splits(FramesOptions(path, config_type_weights={"bad": 0.0}), CUTOFF)
    frames = by_place(images, splits)
    assert [frame.energy.isnan().item() for frame in frames] == [False, False, True, True, False, False]
    assert [frame.forces.isnan().any().item() for frame in frames] == [False, False, False, True, False, False]
    assert not any("weight" in frame for frame in frames)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), "high", [1.0, 2.0]])
def test_weights_that_cannot_be_are_named(tmp_path, weight):
    path = written(tmp_path / "frames.xyz", weighted(crystals(4), {1: {"config_weight": weight}}))
    with pytest.raises(ValueError, match=r"frames\.xyz: frame 1: config_weight=.*, expected a number of 0 or more"):
        read_splits(FramesOptions(path), CUTOFF)


def test_a_weight_of_an_unknown_config_type_is_named(tmp_path):
    path = written(tmp_path / "frames.xyz", weighted(crystals(4), {1: {"config_type": "slab"}}))
    with pytest.raises(ValueError, match=r"no frame has config_type 'surface'; there are 'Default', 'slab' \("):
        read_splits(FramesOptions(path, config_type_weights={"surface": 2.0}), CUTOFF)
    with pytest.raises(ValueError, match="config_type_weights: slab: -1"):
        FramesOptions(path, config_type_weights={"slab": -1.0})


@pytest.mark.slow
def test_errors_of_each_config_type(tmp_path, capsys):
    images = weighted(mixed(20), {n: {"config_type": "slab"} for n in range(0, 20, 2)})
    train, folder = written(tmp_path / "frames.xyz", images), tmp_path / "run"
    test = weighted(crystals(6, seed=2), {n: {"config_type": ("slab", "bulk")[n % 2]} for n in (0, 1, 2, 3, 4)})
    written(tmp_path / "test.xyz", test)
    slabs = written(tmp_path / "slabs.xyz", [test[n] for n in (0, 2, 4)])
    command = ["frames", "--train_file", train, "--test_file", str(tmp_path / "test.xyz"), *TINY.split()]
    metrics = main([*command, "--run_dir", str(folder), "--config_type_weights", "{slab: 5.0}"])
    found = metrics["test"]["config_types"]
    assert {name: errors["frames"] for name, errors in found.items()} == {"Default": 1, "bulk": 2, "slab": 3}
    assert "  of slab" in capsys.readouterr().out
    alone = main(["evaluate", str(folder), "--data", slabs, "--run_dir", str(tmp_path / "e"), "--device", "cpu"])
    for name in ("energy_mae_meV", "forces_rmse_meV_per_A", "stress_mae_meV_per_A3"):
        assert alone["errors"][name] == pytest.approx(found["slab"][name], rel=1e-4)
    total = sum(errors["frames"] * errors["energy_mae_meV"] for errors in found.values())
    assert metrics["test"]["energy_mae_meV"] == pytest.approx(total / 6)


@pytest.mark.slow
def test_details_survive_cache_and_worker_processes(tmp_path):
    images = weighted(crystals(6), {n: {"config_type": "a" * (n + 1), "config_weight": n + 2.0} for n in range(6)})
    path = written(tmp_path / "frames.xyz", images)
    plain = all_of(read_splits(FramesOptions(path), CUTOFF))
    for _ in range(2):
        kept = all_of(read_splits(FramesOptions(path, cache=tmp_path / "cache"), CUTOFF, num_workers=1))
        for one, other in zip(plain, kept, strict=True):
            assert one.config_type == other.config_type
            assert torch.equal(one.weight, other.weight)
    assert len({frame.config_type for frame in plain}) == 6
