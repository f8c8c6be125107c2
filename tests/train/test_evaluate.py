"""`python -m train evaluate` on the folder of a run on embedded frames, and on files."""

import json
import shutil

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress
from torch_geometric.data import Data

from pyg_cgconv import ASECalculator, Potential, RadiusGraph
from train.cli import main

from .conftest import plots_left_out, spring_atoms

TINY = (
    "--channels 4 --lmax 1 --layers 1 --radial_hidden [8] --batch_size 4 --max_epochs 2 --cutoff 3 --device cpu "
    "--progress false"
)
SIZES = "--train_size 12 --val_size 4 --test_size 30 --split_seed 3"
SHIFT = 0.3  # eV, by which references are off


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder and metrics of a run on ethanol."""
    folder = tmp_path_factory.mktemp("run") / "ethanol"
    with plots_left_out():
        return folder, main(["md17", "--run_dir", str(folder), *f"{SIZES} {TINY}".split()])


def evaluate(model, *options, run_dir) -> dict:
    arguments = ["evaluate", str(model), "--device", "cpu", "--run_dir", str(run_dir), *map(str, options)]
    found = main(arguments)
    assert json.loads((run_dir / "metrics.json").read_text()) == found
    return found["errors"]


def references(trained, count: int = 5) -> list[Atoms]:
    """Molecules of springs with energies that are off by one shift, and forces by another, from those of the model."""
    calculator, structures = ASECalculator(trained / "potential.pt", device="cpu"), spring_atoms(count, seed=7)
    for atoms in structures:
        forces = calculator.get_forces(atoms) + np.array([0.0, 0.0, 0.06])
        energy = calculator.get_potential_energy(atoms) - SHIFT
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return structures


def with_stress(trained, count: int, off: float) -> list[Atoms]:
    """Crystals with energies and forces of the model, and stresses off by ``off`` in every component, eV/Angstrom^3."""
    calculator, crystals = ASECalculator(trained / "potential.pt", device="cpu"), spring_atoms(count)
    for atoms in crystals:
        atoms.set_cell(4.5 * np.eye(3))
        atoms.pbc = True
        results = {name: calculator.get_property(name, atoms) for name in ("energy", "forces", "stress")}
        atoms.calc = SinglePointCalculator(atoms, **results | {"stress": results["stress"] + off})
    return crystals


@pytest.mark.parametrize("name", ["", "best.ckpt"])
def test_run_folder_repeats_its_test_errors_exactly(finished, tmp_path, name, no_plots):
    folder, metrics = finished
    found = evaluate(folder / name, run_dir=tmp_path / "out")
    assert found == {key: metrics["test"][key] for key in found}
    assert metrics["test"].keys() - found.keys() <= {"forces_mae_percent"}
    assert found["forces_mae_meV_per_A"] > 1


def test_run_on_a_file_repeats_its_test_errors_exactly(trained, tmp_path, no_plots):
    """Of crystals with stresses among molecules without."""
    crystals, molecules = with_stress(trained, 6, 0.002), references(trained, 6)
    ase.io.write(tmp_path / "crystals.xyz", crystals)
    ase.io.write(tmp_path / "molecules.xyz", molecules)
    files = ["--train_file", f"[{tmp_path / 'crystals.xyz'}, {tmp_path / 'molecules.xyz'}]"]
    sizes = ["--val_size", "2", "--test_size", "6"]
    metrics = main(["frames", "--run_dir", str(tmp_path / "run"), *files, *sizes, *TINY.split()])
    found = evaluate(tmp_path / "run", run_dir=tmp_path / "out")
    assert found == {key: metrics["test"][key] for key in found}
    assert {"energy_mae_meV", "forces_mae_meV_per_A", "stress_mae_meV_per_A3", "species"} <= found.keys()


def test_other_parts_of_the_run_are_evaluated(finished, tmp_path, no_plots):
    folder, metrics = finished
    found = evaluate(folder, "--part", "validation", run_dir=tmp_path / "out")
    assert found["forces_mae_meV_per_A"] == pytest.approx(metrics["validation"]["forces_mae_meV_per_A"], rel=1e-6)


@pytest.mark.slow
def test_frames_of_md17_by_their_options(finished, tmp_path, no_plots):
    """The same split, asked for by name instead of read from the run's configuration."""
    folder, metrics = finished
    shutil.copy(folder / "potential.pt", tmp_path)
    sizes = dict(zip(["train_size", "val_size", "test_size", "split_seed"], [12, 4, 30, 3], strict=True))
    options = [word for name, value in sizes.items() for word in (f"--md17.{name}", value)]
    found = evaluate(tmp_path / "potential.pt", *options, run_dir=tmp_path / "out")
    assert found["forces_mae_meV_per_A"] == pytest.approx(metrics["test"]["forces_mae_meV_per_A"], rel=1e-5)


@pytest.mark.slow
def test_errors_against_a_file(trained, tmp_path, capsys):
    ase.io.write(tmp_path / "reference.xyz", references(trained))
    found = evaluate(trained, "--data", tmp_path / "reference.xyz", run_dir=tmp_path / "out")
    assert found["energy_mae_meV"] == pytest.approx(1000 * SHIFT, abs=0.5)
    assert found["energy_mae_meV_per_atom"] == pytest.approx(1000 * SHIFT / 5, abs=0.1)
    assert found["forces_mae_meV_per_A"] == pytest.approx(20.0, abs=0.1)
    assert set(found["species"]) == {"H", "C", "O"}
    assert found["species"]["O"]["forces_mae_meV_per_A"] == pytest.approx(20.0, abs=0.1)
    assert (tmp_path / "out" / "parity.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert f"{found['energy_mae_meV']:.2f} meV" in printed
    assert "on O" in printed


def test_unknown_elements_are_named(trained, tmp_path):
    frames = references(trained, 2)
    frames[1].symbols[0] = "Xe"
    frames[1].calc.atoms.symbols[0] = "Xe"
    ase.io.write(tmp_path / "reference.xyz", frames)
    with pytest.raises(ValueError, match=r"data: .*reference\.xyz: frame 1 holds Xe \(.*knows H, C, O"):
        evaluate(trained, "--data", tmp_path / "reference.xyz", run_dir=tmp_path / "out")


def test_a_virial_is_compared_as_a_stress(trained, tmp_path, no_plots):
    off, crystals = 0.002, with_stress(trained, 2, 0.002)
    for atoms in crystals:
        atoms.info["W"] = (-atoms.get_volume() * atoms.get_stress(voigt=False)).ravel()
        del atoms.calc.results["stress"]
    ase.io.write(tmp_path / "crystals.xyz", crystals)
    found = evaluate(trained, "--data", tmp_path / "crystals.xyz", "--virial_key", "W", run_dir=tmp_path / "out")
    assert found["stress_mae_meV_per_A3"] == pytest.approx(1000 * off, rel=1e-3)


def test_several_files_and_names_of_labels(trained, tmp_path, no_plots):
    for number, atoms in enumerate(references(trained, 2)):
        atoms.info["DFT_energy"] = atoms.calc.results["energy"]
        atoms.arrays["DFT_forces"] = atoms.calc.results["forces"]
        atoms.calc = None
        ase.io.write(tmp_path / f"{number}.xyz", atoms)
    files = ["--data", tmp_path / "0.xyz", tmp_path / "1.xyz"]
    keys = ["--energy_key", "DFT_energy", "--forces_key", "DFT_forces"]
    found = evaluate(trained, *files, *keys, run_dir=tmp_path / "out")
    assert found["energy_mae_meV"] == pytest.approx(1000 * SHIFT, abs=0.5)


def test_energies_alone(trained, tmp_path, no_plots):
    structures = references(trained, 2)
    for atoms in structures:
        del atoms.calc.results["forces"]
    ase.io.write(tmp_path / "energies.xyz", structures)
    options = ["--data", tmp_path / "energies.xyz", "--labels", "[energy]"]
    found = evaluate(trained, *options, run_dir=tmp_path / "out")
    assert found["energy_mae_meV"] == pytest.approx(1000 * SHIFT, abs=0.5)
    assert not any(key.startswith("forces") for key in found)


def test_stress_of_crystals(trained, tmp_path, no_plots):
    off = 0.002
    ase.io.write(tmp_path / "crystals.xyz", with_stress(trained, 2, off))
    found = evaluate(trained, "--data", tmp_path / "crystals.xyz", run_dir=tmp_path / "out")
    assert found["stress_mae_meV_per_A3"] == pytest.approx(1000 * off, rel=1e-3)
    assert found["forces_mae_meV_per_A"] < 0.1


def test_stress_of_a_slab(trained, tmp_path, no_plots):
    """Wherever there is a label and a volume, there is an error."""
    off, (atoms,) = 0.002, with_stress(trained, 1, 0.0)
    atoms.pbc = [True, True, False]
    potential = Potential.load(trained / "potential.pt")
    frame = Data(z=torch.tensor(atoms.numbers), pos=torch.tensor(atoms.positions))
    frame.cell, frame.pbc = torch.tensor(atoms.cell.array)[None], torch.tensor(atoms.pbc)[None]
    stress = potential(RadiusGraph(potential.cutoff)(frame), compute_stress=True)["stress"][0].numpy()
    atoms.calc.results["stress"] = full_3x3_to_voigt_6_stress(stress + off)
    ase.io.write(tmp_path / "slab.xyz", atoms)
    found = evaluate(trained, "--data", tmp_path / "slab.xyz", run_dir=tmp_path / "out")
    assert found["stress_mae_meV_per_A3"] == pytest.approx(1000 * off, rel=1e-3)


def test_a_checkpoint_of_the_run_in_double_precision(finished, tmp_path, no_plots):
    folder, metrics = finished
    found = evaluate(folder / "best.ckpt", "--dtype", "float64", run_dir=tmp_path / "out")
    assert found["forces_mae_meV_per_A"] == pytest.approx(metrics["test"]["forces_mae_meV_per_A"], rel=1e-4)
    assert found["forces_mae_meV_per_A"] != metrics["test"]["forces_mae_meV_per_A"]


@pytest.mark.parametrize(("line", "named"), [("", "None"), ("task: md18\n", "'md18'")])
def test_a_run_that_does_not_say_its_task_is_named(finished, tmp_path, line, named):
    shutil.copy(finished[0] / "potential.pt", tmp_path)
    written = (finished[0] / "config.yaml").read_text().splitlines(keepends=True)
    others = [text for text in written if not text.startswith("task:")]
    assert len(others) == len(written) - 1
    (tmp_path / "config.yaml").write_text("".join([line, *others]))
    with pytest.raises(ValueError, match=rf"config\.yaml has task={named}, expected one of md17, frames, qm9: add a"):
        evaluate(tmp_path, run_dir=tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels", "[forces]"], r"labels=\['forces'\]: expected energy among them"),
        (["--batch_size", "0"], "batch_size=0: expected a number above 0"),
        (["--data", "a.xyz", "--md17.molecule", "ethanol"], "data and md17: give one of them"),
        ([], r"lies in no run folder, whose config\.yaml"),
        (["--device", "nowhere"], "device='nowhere' cannot be used here"),
    ],
)
def test_mistakes_are_named(trained, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        main(["evaluate", str(trained), "--run_dir", str(tmp_path / "out"), *options])
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(trained, tmp_path):
    ase.io.write(tmp_path / "reference.xyz", references(trained, 2))
    arguments = ["evaluate", str(trained), "--data", str(tmp_path / "reference.xyz"), "--run_dir", str(tmp_path)]
    with pytest.raises(ValueError, match=r"run_dir=.* holds something already"):
        main(arguments)
