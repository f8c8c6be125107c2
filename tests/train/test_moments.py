"""Charges, dipoles and energies of atoms: from files to errors, with an energy and without one."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from torch_geometric.data import Batch

from pyg_cgconv import ASECalculator, CommitteeCalculator, Potential
from train.cli import main
from train.columns import has_label
from train.committee import report
from train.frames import FramesOptions, read_splits
from train.heads import levels_of, statistics_of
from train.metrics import MEV_PER_EV
from train.module import new_module
from train.padded_frames import PaddedFrames

from .test_frames import CUTOFF, TINY

pytestmark = pytest.mark.usefixtures("no_plots")

ALL = ["energy", "forces", "energies", "charges", "dipole"]
ELECTRONEGATIVITY = {1: 0.0, 6: 0.1, 8: 0.6}


def labelled(atoms: Atoms, charge: float = 0.0) -> Atoms:
    """Energies of springs to the next atoms, of which each has half; charges by element; the dipole that they make."""
    pos, mass = atoms.positions, atoms.get_masses()
    vectors = pos[:, None] - pos[None]
    lengths = np.linalg.norm(vectors, axis=-1) + 10 * np.eye(len(atoms))
    near = lengths < 1.6
    energies = (3.0 * near * (lengths - 1.1) ** 2).sum(1) / 2 - 5.0 * atoms.numbers
    forces = -(3.0 * 2 * near * (lengths - 1.1) / lengths)[..., None] * vectors
    drawn = np.array([-ELECTRONEGATIVITY[z] for z in atoms.numbers.tolist()])
    charges = drawn - drawn.mean() + charge / len(atoms)
    dipole = charges @ (pos - mass @ pos / mass.sum())
    atoms.calc = SinglePointCalculator(
        atoms, energy=energies.sum(), energies=energies, forces=forces.sum(1), charges=charges, dipole=dipole
    )
    if charge:
        atoms.info["charge"] = charge
    return atoms


def molecules(count: int, seed: int = 0) -> list[Atoms]:
    random = np.random.default_rng(seed)
    made = [molecule(("H2O", "CH4", "CH3OH")[number % 3]) for number in range(count)]
    for atoms in made:
        atoms.rattle(0.08, rng=random)
    return [labelled(atoms, charge=float(number % 4 == 3)) for number, atoms in enumerate(made)]


def written(path, images) -> str:
    write(path, images)
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("files")
    return {
        name: written(folder / f"{name}.xyz", molecules(*size))
        for name, size in {"train": (18, 0), "test": (6, 1)}.items()
    }


def command(files, folder, labels=ALL, *options: str) -> list[str]:
    given = ["frames", "--train_file", files["train"], "--test_file", files["test"], "--run_dir", str(folder)]
    return [*given, "--labels", f"[{','.join(labels)}]", *TINY.split(), *options]


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("moments") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.run.learning_curve", lambda *arguments: None)
        return folder, main(command(files, folder, ALL, "--max_epochs", "4", "--lr", "0.05", "--warmup_steps", "2"))


def test_labels_are_read_as_ase_has_them(files):
    splits = read_splits(FramesOptions(files["train"], labels=ALL), CUTOFF)
    frames = [*splits.train, *splits.validation, *splits.test]
    for atoms in read(files["train"], ":"):
        frame = min(frames, key=lambda f: abs(f.energy.item() - atoms.get_potential_energy()))
        np.testing.assert_allclose(frame.dipole[0], atoms.get_dipole_moment())
        np.testing.assert_allclose(frame.charges, atoms.get_charges())
        np.testing.assert_allclose(frame.energies, atoms.get_potential_energies())
        assert frame.charge.item() == atoms.info.get("charge", 0.0)


@pytest.mark.slow
def test_all_of_them_are_learned(trained):
    folder, metrics = trained
    assert Potential.load(folder).hyperparameters["properties"] == ["energy", "charges", "dipole"]
    for name in ("charges_mae_me", "dipole_mae_me_A", "forces_mae_meV_per_A"):
        assert metrics["test"][name] < metrics["baseline"][name]
    header, *rows = (folder / "metrics.csv").read_text().splitlines()
    assert "val/dipole_mae_me_A" in header
    assert len(rows) == 4
    assert (folder / "parity.png").stat().st_size > 0


@pytest.mark.slow
def test_errors_are_those_of_the_calculator(trained, files):
    folder, metrics = trained
    calculator, errors = ASECalculator(folder), {"dipole": [], "charges": [], "energies": []}
    for atoms in read(files["test"], ":"):
        expected = atoms.calc.results
        for name, found in errors.items():
            found.append(np.abs(calculator.get_property(name, atoms) - expected[name]))
    for name, unit in (("dipole", "me_A"), ("charges", "me"), ("energies", "meV")):
        mean = MEV_PER_EV * np.concatenate(errors[name]).mean()
        assert metrics["test"][f"{name}_mae_{unit}"] == pytest.approx(mean, rel=1e-3)


def test_the_loss_by_hand(files, model, fit):
    splits = read_splits(FramesOptions(files["train"], labels=ALL), CUTOFF)
    statistics = statistics_of(levels_of(splits, None))
    module = new_module(model, fit, statistics, "float64", ALL).eval()
    batch = Batch.from_data_list(list(splits.train))
    found, out = module.residuals(module(batch), batch), module(batch)
    rms = {name: batch[name].square().mean().sqrt() for name in ("charges", "dipole")}
    assert statistics.units == {name: pytest.approx(value.item()) for name, value in rms.items()}
    torch.testing.assert_close(found["dipole"], (out["dipole"] - batch.dipole) / rms["dipole"])
    torch.testing.assert_close(found["charges"], (out["charges"] - batch.charges) / rms["charges"])
    torch.testing.assert_close(found["energies"], (out["energies"] - batch.energies) / statistics.scale)
    weights = module.loss_weights(0.0)
    assert (weights["energies"], weights["charges"], weights["dipole"]) == (1.0, 1.0, 1.0)


def test_weights_of_options_and_frames(files, tmp_path, model, fit):
    images = read(files["train"], ":")
    images[0].info |= {"config_dipole_weight": 0.0, "config_charges_weight": 3.0}
    path = written(tmp_path / "weights.xyz", images)
    splits = read_splits(FramesOptions(path, labels=ALL), CUTOFF)
    frames = [*splits.train, *splits.validation, *splits.test]
    assert sum(not has_label(frame, "dipole") for frame in frames) == 1
    assert sorted({frame.weight[0, 4].item() for frame in frames}) == [1.0, 3.0]
    module = new_module(model, fit, statistics_of(levels_of(splits, None)), "float64", ALL)
    batch = Batch.from_data_list(frames)
    per_atom = module.label_weights("charges", batch)
    assert per_atom.shape == (batch.num_nodes,)
    assert module.label_weights("dipole", batch).shape == (len(frames), 1)


def test_padded_batches_have_them(files, model, fit):
    splits = read_splits(FramesOptions(files["train"], labels=ALL), CUTOFF)
    module = new_module(model, fit, statistics_of(levels_of(splits, None)), "float64", ALL)
    numbers = torch.tensor([0, 2, 5, 7])
    frames = PaddedFrames(splits.train, CUTOFF, "cpu")
    plain = Batch.from_data_list([splits.train[number] for number in numbers])
    padded = frames.batch(numbers, frames.size_of(numbers))
    expected, found = module(plain), module(padded)
    for name in ("dipole", "charges", "energies"):
        rows = len(expected[name])
        torch.testing.assert_close(found[name][:rows], expected[name], rtol=0, atol=1e-9)
        torch.testing.assert_close(padded[name][:rows], plain[name], rtol=0, atol=0)
        assert padded[name][rows:].isnan().all()


@pytest.mark.slow
def test_a_dipole_alone(files, tmp_path, capsys):
    metrics = main(
        command(files, tmp_path / "run", ["dipole"], "--max_epochs", "3", "--lr", "0.05", "--warmup_steps", "2")
    )
    assert metrics["test"]["dipole_mae_me_A"] < metrics["baseline"]["dipole_mae_me_A"]
    assert metrics["test"].keys() == {"dipole_mae_me_A", "dipole_rmse_me_A"}
    potential = Potential.load(tmp_path / "run")
    assert potential.hyperparameters["properties"] == ["dipole"]
    again = main(["evaluate", str(tmp_path / "run"), "--device", "cpu", "--run_dir", str(tmp_path / "again")])
    assert again["errors"]["dipole_mae_me_A"] == pytest.approx(metrics["test"]["dipole_mae_me_A"], rel=1e-5)
    out = tmp_path / "out.xyz"
    main(["predict", str(tmp_path / "run"), "--data", files["test"], "--output", str(out), "--device", "cpu"])
    assert "frames with dipole (eV, e, Angstrom)" in capsys.readouterr().out
    calculator = ASECalculator(tmp_path / "run")
    for atoms, before in zip(read(out, ":"), read(files["test"], ":"), strict=True):
        np.testing.assert_allclose(atoms.get_dipole_moment(), calculator.get_property("dipole", before), atol=1e-5)
        np.testing.assert_allclose(atoms.info["ref_dipole"], before.get_dipole_moment())
    structure = ["--structure", files["test"], "--run_dir", str(tmp_path / "md"), "--device", "cpu"]
    with pytest.raises(ValueError, match=r"model=.* gives dipole only, and no forces to move atoms by"):
        main(["md", str(tmp_path / "run"), *structure])
    with pytest.raises(ValueError, match=r"properties: this potential has no energy"):
        main(["export", str(tmp_path / "run"), "--output", str(tmp_path / "a.pt"), "--format", "lammps"])


@pytest.mark.slow
def test_an_evaluation_compares_all_that_model_and_file_have(trained, files, tmp_path):
    folder, metrics = trained
    own = ["--data", files["test"], "--device", "cpu", "--run_dir"]
    found = main(["evaluate", str(folder), *own, str(tmp_path / "all")])["errors"]
    for name in ("energy_mae_meV", "forces_mae_meV_per_A", "charges_mae_me", "dipole_mae_me_A"):
        assert found[name] == pytest.approx(metrics["test"][name], rel=1e-3)
    found = main(["evaluate", str(folder), *own, str(tmp_path / "one"), "--labels", "[dipole]"])["errors"]
    assert {name.split("_")[0] for name in found} == {"dipole"}


def test_an_evaluation_of_charges_needs_no_energy(members, files, tmp_path):
    model, images = members / "member-0", read(files["test"], ":")
    for atoms in images:
        atoms.calc = SinglePointCalculator(atoms, charges=atoms.calc.results["charges"])
    given = ["evaluate", str(model), "--device", "cpu", "--data", written(tmp_path / "charges.xyz", images)]
    found = main([*given, "--run_dir", str(tmp_path / "run")])["errors"]
    assert {name.split("_")[0] for name in found} == {"charges"}
    with pytest.raises(ValueError, match="labels: energy: the model gives charges, dipole only"):
        main([*given, "--labels", "[energy]"])


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """A folder with two random potentials of charges and dipoles alone, as a committee has them."""
    folder = tmp_path_factory.mktemp("committee")
    for number in range(2):
        torch.manual_seed(number)
        potential = Potential(["H", "C", "O"], CUTOFF, channels=4, layers=1, properties=["charges", "dipole"])
        (folder / f"member-{number}").mkdir()
        potential.save(folder / f"member-{number}" / "potential.pt")
    return folder


def test_a_committee_of_charges_has_a_mean_and_a_spread(members, files, tmp_path):
    models, output = [members / "member-0", members / "member-1"], tmp_path / "out.xyz"
    main(["predict", *map(str, models), "--data", files["test"], "--output", str(output), "--device", "cpu"])
    calculator = CommitteeCalculator(models)
    for atoms, predicted in zip(read(files["test"], ":"), read(output, ":"), strict=True):
        for name in ("charges", "dipole"):
            expected = calculator.get_property(name, atoms)
            np.testing.assert_allclose(predicted.calc.results[name], expected, atol=1e-5)
        spread = calculator.results
        np.testing.assert_allclose(predicted.arrays["charges_std"], spread["charges_std"], atol=1e-5)
        np.testing.assert_allclose(predicted.info["dipole_std"], spread["dipole_std"], atol=1e-5)
        assert "energy_std" not in predicted.info
        assert spread["charges_std"].max() > 1e-3


def test_a_committee_of_charges_is_compared_with_its_labels(members, files, capsys):
    splits = read_splits(FramesOptions(files["train"], test_file=files["test"], labels=["charges", "dipole"]), CUTOFF)
    told = [{"folder": f"member-{n}", "seed": n, "seconds": 0.0, "epochs": 0, "test": {}} for n in range(2)]
    metrics = report(members, splits, told, 4)
    calculator, errors = CommitteeCalculator([members / one["folder"] for one in told]), []
    for atoms in read(files["test"], ":"):
        errors.append(calculator.get_charges(atoms) - atoms.calc.results["charges"])
    assert metrics["test"]["charges_mae_me"] == pytest.approx(1000 * np.abs(np.concatenate(errors)).mean(), rel=1e-4)
    assert metrics["spread"] == {}


def test_frames_are_not_selected_by_charges(members, files, tmp_path):
    models = [str(members / f"member-{number}") for number in range(2)]
    with pytest.raises(ValueError, match=r"spread of forces or energies, but .*charges, dipole only"):
        main(
            ["select", *models, "--pool", files["test"], "--number", "2", "--run_dir", str(tmp_path), "--device", "cpu"]
        )


@pytest.mark.slow
def test_predictions_have_all_of_them(trained, files, tmp_path):
    folder, _ = trained
    out = tmp_path / "out.xyz"
    arguments = ["--data", files["test"], "--output", str(out), "--device", "cpu", "--energies", "true"]
    main(["predict", str(folder), *arguments])
    calculator = ASECalculator(folder)
    for atoms, before in zip(read(out, ":"), read(files["test"], ":"), strict=True):
        for name in ("energy", "forces", "energies", "charges", "dipole"):
            expected = calculator.get_property(name, before)
            np.testing.assert_allclose(atoms.calc.results[name], expected, atol=2e-4)
        assert atoms.get_charges().sum() == pytest.approx(before.info.get("charge", 0.0), abs=1e-6)


@pytest.mark.slow
def test_fine_tuning_goes_on_with_them(trained, files, tmp_path):
    folder, before = trained
    options = ["--init", str(folder), "--labels", f"[{','.join(ALL)}]", "--lr", "1e-30", "--max_epochs", "1"]
    paths = ["--train_file", files["train"], "--test_file", files["test"], "--run_dir", str(tmp_path / "run")]
    found = main(["frames", *paths, *options, "--device", "cpu", "--progress", "false"])
    assert found["test"]["dipole_mae_me_A"] == pytest.approx(before["test"]["dipole_mae_me_A"], rel=1e-3)


@pytest.mark.slow
def test_frames_with_and_without_them(files, tmp_path):
    """Crystals among molecules: what is not labelled is not learned."""
    crystal = molecule("H2O", cell=[4.5] * 3, pbc=True)
    images = [*molecules(12), *(labelled(crystal.copy()) for _ in range(3))]
    for atoms in images[12:]:
        atoms.rattle(0.05, rng=np.random.default_rng(0))
        del atoms.calc.results["dipole"]
    mixed = {"train": written(tmp_path / "mixed.xyz", images), "test": files["test"]}
    metrics = main(command(mixed, tmp_path / "run", ALL, "--max_epochs", "1"))
    assert np.isfinite(metrics["test"]["dipole_mae_me_A"])
    assert metrics["labels"]["train"]["dipole"] < metrics["labels"]["train"]["charges"]


# === mistakes ===


def test_labels_that_need_an_energy_are_named(files):
    with pytest.raises(ValueError, match=r"labels=\['forces', 'dipole'\]: expected energy among them"):
        FramesOptions(files["train"], labels=["forces", "dipole"])


def test_a_periodic_dipole_is_refused(tmp_path):
    images = molecules(3)
    images[1].set_cell([9.0] * 3)
    images[1].pbc = True
    with pytest.raises(ValueError, match=r"a.xyz: frame 1 has a dipole, but is periodic"):
        read_splits(FramesOptions(written(tmp_path / "a.xyz", images), labels=["dipole"]), CUTOFF)


def test_names_of_labels_and_charges(tmp_path):
    images = molecules(4)
    for number, atoms in enumerate(images):
        atoms.info["total_charge"] = atoms.info.pop("charge", 0.0)
        if number:
            atoms.info["REF_dipole"] = atoms.calc.results.pop("dipole")
    path = written(tmp_path / "a.xyz", images)
    with pytest.raises(ValueError, match="has no charge, the total charge in e, perhaps 'total_charge': name it by"):
        read_splits(FramesOptions(path, labels=["dipole", "energy"], dipole_key="REF_dipole"), CUTOFF)
    with pytest.raises(ValueError, match=r"frame 1 has no dipole; .*perhaps 'REF_dipole', as `dipole_key`"):
        read_splits(FramesOptions(path, labels=["dipole"], charge_key="total_charge"), CUTOFF)
    with pytest.raises(ValueError, match="dipole_key: got 'REF_dipole', but labels does not name dipole"):
        read_splits(FramesOptions(path, dipole_key="REF_dipole"), CUTOFF)
    known = dict(labels=["charges"], charge_key="total_charge")
    splits = read_splits(FramesOptions(path, **known), CUTOFF)
    assert sorted(frame.charge.item() for frame in [*splits.train, *splits.validation, *splits.test]) == [0, 0, 0, 1]


def test_charges_that_do_not_sum_are_noticed(tmp_path):
    images = molecules(4)
    images[0].calc.results["charges"] = images[0].calc.results["charges"] + 0.5
    with pytest.warns(UserWarning, match=r"charges of 1 of 4 frames do not sum to the total charge, .* \+1.5 e off"):
        read_splits(FramesOptions(written(tmp_path / "a.xyz", images), labels=["charges"]), CUTOFF)


@pytest.mark.slow
def test_a_potential_without_dipoles_cannot_go_on_with_them(files, tmp_path):
    potential = Potential([1, 6, 8], CUTOFF, channels=2, lmax=1, layers=1)
    potential.save(tmp_path / "old.pt")
    options = ["--init", str(tmp_path / "old.pt"), "--labels", "[energy,dipole]", "--run_dir", str(tmp_path / "run")]
    with pytest.raises(ValueError, match=r"dipole: the potential of init=.* gives energy only; train one from random"):
        main(["frames", "--train_file", files["train"], *options, "--device", "cpu", "--progress", "false"])
