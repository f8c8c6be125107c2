import re

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from datasets import AtomsFile
from pyg_cgconv import ASECalculator, CommitteeCalculator, Potential
from train.data_files import DataFiles
from train.evaluate import EvaluateOptions, ReferenceOptions
from train.evaluate import run as evaluate
from train.predict import PredictOptions, reference_labels, run, with_prediction
from train.predictions import Prediction
from train.trained import ComputeOptions, ModelFile, ModelFiles

from .conftest import spring_atoms

WRITTEN_DIGITS = 1e-8  # of forces in extended XYZ
STRESS = [0.1, 0.2, 0.3, 0.04, 0.05, 0.06]


def labelled(atoms: Atoms, seed: int, **results) -> Atoms:
    """With an energy and forces of nobody in particular."""
    rng = np.random.default_rng(seed)
    atoms.calc = SinglePointCalculator(atoms, energy=rng.normal(), forces=rng.normal(size=(len(atoms), 3)), **results)
    return atoms


def mixed_structures() -> list[Atoms]:
    """Molecules and crystals in turn, one atom more in some, with what else files hold."""
    molecule, crystal, last, slab = spring_atoms(4)
    molecule.info["smiles"], molecule.arrays["tags"] = "CO", np.arange(5)
    crystal.set_cell([[4.5, 0.1, 0.0], [0.0, 4.6, 0.2], [0.3, 0.0, 4.4]])
    crystal.pbc = True
    crystal.set_constraint(FixAtoms([1]))
    last += Atoms("H", positions=[[3.0, 1.0, 1.0]])
    slab.set_cell([4.5, 4.5, 0.0])
    slab.pbc = (True, True, False)
    structures = [molecule, crystal, last, slab]
    return [labelled(atoms, i, **({"stress": STRESS} if i == 1 else {})) for i, atoms in enumerate(structures)]


def predict(model, data, output, **options) -> list[Atoms]:
    run(ModelFiles([model]), DataFiles(data), PredictOptions(output, **options), ComputeOptions(device="cpu"))
    return ase.io.read(output, ":")


@pytest.fixture(scope="module")
def predicted(trained, tmp_path_factory):
    """Structures as they were, and as they are read back, in batches of two."""
    folder = tmp_path_factory.mktemp("predict")
    structures = mixed_structures()
    ase.io.write(folder / "first.xyz", structures[:1])
    ase.io.write(folder / "second@1.xyz", structures[1:])
    files = [folder / "first.xyz", folder / "second@1.xyz"]
    return structures, predict(trained, files, folder / "out.xyz", batch_size=2), folder / "out.xyz"


def test_predictions_are_those_of_the_calculator(trained, predicted):
    structures, found, _ = predicted
    calculator = ASECalculator(trained / "potential.pt", device="cpu")
    for before, after in zip(structures, found, strict=True):
        # Positions in a file have eight digits, and a batch of float32 sums in another order.
        assert after.get_potential_energy() == pytest.approx(calculator.get_potential_energy(before), abs=1e-4)
        np.testing.assert_allclose(after.calc.results["forces"], calculator.get_forces(before), atol=1e-4)
    assert abs(found[0].get_forces()).max() > 0.1


def test_stress_is_that_of_crystals_only(trained, predicted):
    structures, found, _ = predicted
    assert ["stress" in atoms.calc.results for atoms in found] == [False, True, False, False]
    expected = ASECalculator(trained / "potential.pt", device="cpu").get_stress(structures[1])
    np.testing.assert_allclose(found[1].get_stress(), expected, atol=1e-6)


def test_references_are_kept_under_their_names(predicted):
    structures, found, output = predicted
    for before, after in zip(structures, found, strict=True):
        assert after.info["ref_energy"] == before.calc.results["energy"]
        np.testing.assert_allclose(after.arrays["ref_forces"], before.calc.results["forces"], atol=WRITTEN_DIGITS)
    assert after.calc.results["energy"] != before.calc.results["energy"]
    read = AtomsFile(output, labels=("energy", "forces"), energy_key="ref_energy", forces_key="ref_forces")
    assert read[0].energy.item() == structures[0].calc.results["energy"]
    assert found[1].info["ref_stress"].tolist() == STRESS


def test_all_else_is_kept(predicted):
    structures, found, _ = predicted
    for before, after in zip(structures, found, strict=True):
        assert (after.numbers == before.numbers).all()
        assert (after.pbc == before.pbc).all()
        np.testing.assert_allclose(after.positions, before.positions, atol=WRITTEN_DIGITS)
        np.testing.assert_allclose(after.cell.array, before.cell.array)
    assert found[0].info["smiles"] == "CO"
    assert found[0].arrays["tags"].tolist() == [0, 1, 2, 3, 4]
    assert found[1].constraints[0].index.tolist() == [1]


def test_device_is_that_asked_for(trained, predicted, tmp_path, device):
    structures, found, _ = predicted
    ase.io.write(tmp_path / "in.xyz", structures)
    output, compute = tmp_path / "out.xyz", ComputeOptions(device=device.type)
    run(ModelFiles([trained]), DataFiles([tmp_path / "in.xyz"]), PredictOptions(output), compute)
    for there, here in zip(ase.io.read(output, ":"), found, strict=True):
        np.testing.assert_allclose(there.get_forces(), here.get_forces(), atol=1e-4)


def test_structures_without_labels_get_none(trained, tmp_path):
    ase.io.write(tmp_path / "in.xyz", spring_atoms(2))
    found = predict(trained, [tmp_path / "in.xyz"], tmp_path / "out.xyz")
    assert all(set(atoms.calc.results) == {"energy", "forces"} for atoms in found)
    assert not any(key.startswith("ref_") for atoms in found for key in (*atoms.info, *atoms.arrays))


def test_a_reference_of_the_same_name_is_named():
    atoms = labelled(spring_atoms(1)[0], seed=0)
    atoms.info["ref_energy"] = 1.0
    with pytest.raises(ValueError, match="both energy and ref_energy"):
        with_prediction(atoms, Prediction(0.0, np.zeros((5, 3)), None))


def test_unknown_elements_leave_no_output(trained, tmp_path):
    ase.io.write(tmp_path / "in.xyz", [*spring_atoms(1), Atoms("Xe")])
    with pytest.raises(ValueError, match=r"in\.xyz: frame 1 holds Xe \(.*54.*\), which .* knows H, C, O: leave"):
        predict(trained, [tmp_path / "in.xyz"], tmp_path / "out.xyz")
    assert [path.name for path in tmp_path.iterdir()] == ["in.xyz"]


def test_unknown_elements_are_found_in_their_file(trained, tmp_path):
    for name, structures in (("first", spring_atoms(3)), ("second", [*spring_atoms(1), Atoms("AuHXe")])):
        ase.io.write(tmp_path / f"{name}.xyz", structures)
    with pytest.raises(ValueError, match=r"second\.xyz: frame 1 holds Xe, Au \("):
        predict(trained, [tmp_path / "first.xyz", tmp_path / "second.xyz"], tmp_path / "out.xyz")


def test_mistakes_are_named(trained, tmp_path):
    (tmp_path / "there.xyz").touch()
    with pytest.raises(ValueError, match=r"output='.*there\.xyz' exists already"):
        PredictOptions(tmp_path / "there.xyz")
    with pytest.raises(ValueError, match=r"output=.*expected a name that ends in \.xyz"):
        PredictOptions(tmp_path / "out.traj")
    with pytest.raises(ValueError, match="batch_size=0: expected a number above 0"):
        PredictOptions(tmp_path / "out.xyz", batch_size=0)
    with pytest.raises(ValueError, match="data: no file given"):
        predict(trained, [], tmp_path / "out.xyz")
    with pytest.raises(ValueError, match="num_workers=-1: expected 0 or more"):
        DataFiles([], num_workers=-1)


# Committees


@pytest.fixture(scope="module")
def members(trained, tmp_path_factory):
    """The trained potential, and one whose atoms learn another unit of energy."""
    file = tmp_path_factory.mktemp("members") / "other.pt"
    other = Potential.load(trained / "potential.pt")
    other.scale.mul_(1.5)
    other.save(file)
    return [trained, file]


def predict_together(members, folder, structures) -> list[Atoms]:
    ase.io.write(folder / "in.xyz", structures)
    files, output = DataFiles([folder / "in.xyz"]), PredictOptions(folder / "out.xyz", batch_size=2)
    run(ModelFiles(members), files, output, ComputeOptions(device="cpu"))
    return ase.io.read(folder / "out.xyz", ":")


def test_several_models_give_their_mean_and_spread(members, tmp_path):
    structures = mixed_structures()
    found = predict_together(members, tmp_path, structures)
    calculator = CommitteeCalculator([members[0], members[1]])
    for before, after in zip(structures, found, strict=True):
        calculator.get_forces(before)
        expected = calculator.results
        assert after.get_potential_energy() == pytest.approx(expected["energy"], abs=1e-4)
        assert after.info["energy_std"] == pytest.approx(expected["energy_std"], abs=1e-4)
        np.testing.assert_allclose(after.calc.results["forces"], expected["forces"], atol=1e-4)
        np.testing.assert_allclose(after.arrays["forces_std"], expected["forces_std"], atol=1e-4)
        assert after.arrays["forces_std"].max() > 0.05
    assert ["stress_std" in atoms.info for atoms in found] == [False, True, False, False]
    calculator.get_stress(structures[1])
    np.testing.assert_allclose(found[1].info["stress_std"], calculator.results["stress_std"], atol=1e-6)


def test_a_spread_that_the_file_had_is_kept(members, tmp_path):
    atoms = spring_atoms(1)[0]
    atoms.info["energy_std"], atoms.arrays["forces_std"] = 7.0, np.arange(5.0)
    (found,) = predict_together(members, tmp_path, [atoms])
    assert (found.info["ref_energy_std"], found.arrays["ref_forces_std"].tolist()) == (7.0, [0.0, 1.0, 2.0, 3.0, 4.0])
    assert found.info["energy_std"] != 7.0


def test_one_model_has_no_spread(trained, tmp_path):
    (found,) = predict_together([trained], tmp_path, spring_atoms(1))
    assert "energy_std" not in found.info
    assert "forces_std" not in found.arrays


def test_errors_are_those_of_evaluate(trained, tmp_path, capsys):
    structures = [labelled(atoms, seed) for seed, atoms in enumerate(spring_atoms(4))]
    structures[3].calc.results.pop("forces")
    for number, atoms in enumerate(structures):
        atoms.info["config_type"] = ("a", "b")[number % 2]
    ase.io.write(tmp_path / "in.xyz", structures)
    files, compute = DataFiles([tmp_path / "in.xyz"]), ComputeOptions(device="cpu")
    options = EvaluateOptions(tmp_path / "evaluated")
    expected = evaluate(ModelFile(trained), files, ReferenceOptions(), options, compute)["errors"]
    table = capsys.readouterr().out.split("mean absolute error")[1].split("\n\n")[0]
    result = run(
        ModelFiles([trained]), files, PredictOptions(tmp_path / "out.xyz", run_dir=tmp_path / "report"), compute
    )
    assert table in capsys.readouterr().out
    assert result["errors"] == expected
    written = [{path.name for path in (tmp_path / name).iterdir()} for name in ("evaluated", "report")]
    assert written[0] == written[1] == {"metrics.json", "parity.png", "report.html"}


def test_a_report_needs_labels(trained, tmp_path, capsys):
    ase.io.write(tmp_path / "in.xyz", spring_atoms(2))
    predict(trained, [tmp_path / "in.xyz"], tmp_path / "out.xyz")
    assert "mean absolute error" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="run_dir: no frame in the files has energy, forces, stress to compare with"):
        predict(trained, [tmp_path / "in.xyz"], tmp_path / "other.xyz", run_dir=tmp_path / "report")
    assert not (tmp_path / "other.xyz").exists()


def test_a_result_that_the_model_does_not_give_is_no_label(trained, tmp_path):
    (atoms,) = spring_atoms(1)
    atoms.calc = SinglePointCalculator(atoms, free_energy=-1.0)
    ase.io.write(tmp_path / "in.xyz", atoms)
    with pytest.raises(ValueError, match="run_dir: no frame in the files has energy, forces, stress"):
        predict(trained, [tmp_path / "in.xyz"], tmp_path / "out.xyz", run_dir=tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_odd_labels_do_not_stop_a_prediction(trained, tmp_path, capsys):
    structures = [labelled(atoms, seed) for seed, atoms in enumerate(spring_atoms(2))]
    ase.io.write(tmp_path / "in.xyz", structures)
    text = (tmp_path / "in.xyz").read_text().splitlines()
    text[1] = re.sub(r"\benergy=\S+", 'energy="1.0 2.0"', text[1])
    (tmp_path / "in.xyz").write_text("\n".join(text) + "\n")
    predict(trained, [tmp_path / "in.xyz"], tmp_path / "out.xyz")
    assert "warning: 1 frames are not compared with their labels" in capsys.readouterr().out
    assert len(ase.io.read(tmp_path / "out.xyz", ":")) == 2


def test_labels_of_another_shape_are_named():
    atoms = labelled(spring_atoms(1)[0], seed=0)
    atoms.info["energy"], atoms.calc = [1.0, 2.0], None
    with pytest.raises(ValueError, match=r"has energy of float64 and shape \(2,\), expected numbers of shape \(1,\)"):
        reference_labels(atoms, Prediction(0.0, np.zeros((5, 3)), None))
