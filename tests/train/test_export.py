import json

import pytest
import torch
from torch_geometric.data import Batch

from pyg_cgconv import ASECalculator, Potential
from train.export import ExportOptions, run
from train.trained import ModelFile

from .conftest import spring_atoms


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    file = tmp_path_factory.mktemp("exported") / "model.pt"
    return file, run(ModelFile(trained / "best.ckpt"), ExportOptions(file))


def test_exported_model_equals_the_original_bit_for_bit(trained, exported, splits):
    batch = Batch.from_data_list(list(splits.test))
    original, found = Potential.load(trained / "potential.pt"), Potential.load(exported[0])
    assert found.hyperparameters == original.hyperparameters
    assert all(torch.equal(value, original.state_dict()[name]) for name, value in found.state_dict().items())
    expected = original(batch)
    assert all(torch.equal(value, expected[name]) for name, value in found(batch).items())


def test_ase_reads_it(trained, exported):
    forces = [ASECalculator(file).get_forces(spring_atoms(1)[0]) for file in (exported[0], trained / "potential.pt")]
    assert abs(forces[0]).max() > 0.1
    assert (forces[0] == forces[1]).all()


def test_metadata_say_what_it_is(trained, exported):
    file, metadata = exported
    assert Potential.load(file).metadata == metadata
    assert metadata["species"] == ["H", "C", "O"]
    assert metadata["units"]["forces"] == "eV/Angstrom"
    assert metadata["source"] == "best.ckpt"
    assert metadata["training"] == json.loads((trained / "metrics.json").read_text())
    assert "torch" in metadata["versions"]


def test_a_run_writes_the_same_metadata_without_being_exported(trained, exported):
    assert Potential.load(trained / "potential.pt").metadata == exported[1]


def test_exporting_again_keeps_what_is_known_of_the_training(exported, tmp_path):
    file, metadata = exported
    again = run(ModelFile(file), ExportOptions(tmp_path / "double.pt", dtype="float64"))
    assert again["training"] == metadata["training"]
    assert Potential.load(tmp_path / "double.pt").dtype == torch.float64


def test_nothing_is_overwritten(exported):
    with pytest.raises(ValueError, match=r"output='.*model\.pt' exists already"):
        ExportOptions(exported[0])


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"output=.*there is no folder"):
        ExportOptions(tmp_path / "nowhere" / "model.pt")


def test_a_file_for_lammps(trained, tmp_path, capsys):
    run(ModelFile(trained), ExportOptions(tmp_path / "lammps.pt", dtype="float64", format="lammps"))
    assert "pair_style mliap unified" in capsys.readouterr().out
    found = torch.load(tmp_path / "lammps.pt", weights_only=False)  # as LAMMPS does
    original = Potential.load(trained, dtype="float64")
    assert found.element_types == ["H", "C", "O"]
    assert found.potential.metadata["training"] == original.metadata["training"]
    assert all(torch.equal(value, original.state_dict()[name]) for name, value in found.potential.state_dict().items())


def test_lammps_reads_certain_names_only(tmp_path):
    with pytest.raises(ValueError, match=r"output='.*model\.lmp': LAMMPS reads files that end in \.pt or \.pth"):
        ExportOptions(tmp_path / "model.lmp", format="lammps")
