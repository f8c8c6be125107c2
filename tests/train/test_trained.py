import shutil

import pytest
import torch
from torch_geometric.data import Batch

from pyg_cgconv.potential import Potential
from train.trained import ComputeOptions, load_trained, model_file, run_folder, training_record


def weights(potential: Potential) -> dict[str, torch.Tensor]:
    return dict(potential.named_parameters())


def averaged(trained) -> dict[str, torch.Tensor]:
    """Weights as the best checkpoint has them, read without the code under test."""
    return torch.load(trained / "best.ckpt", weights_only=False)["state_dict"]


@pytest.mark.parametrize("name", ["", "potential.pt", "best.ckpt"])
def test_weights_are_the_averaged_ones(trained, name):
    found, expected = weights(load_trained(trained / name)), averaged(trained)
    assert found
    assert all(torch.equal(value, expected[f"potential.{key}"]) for key, value in found.items())


def test_a_run_that_is_not_over_has_its_best_checkpoint(trained, tmp_path):
    shutil.copy(trained / "best.ckpt", tmp_path)
    assert model_file(tmp_path) == tmp_path / "best.ckpt"
    assert load_trained(tmp_path).hyperparameters == load_trained(trained).hyperparameters


def test_predictions_are_those_of_the_potential_alone(trained, splits):
    batch = Batch.from_data_list(list(splits.test))
    expected = Potential.load(trained / "potential.pt")(batch)
    for name, value in load_trained(trained / "best.ckpt")(batch).items():
        assert torch.equal(value, expected[name])


@pytest.mark.parametrize("name", ["potential.pt", "best.ckpt"])
def test_dtype_is_that_asked_for(trained, name):
    potential = load_trained(trained / name, dtype="float64")
    assert potential.dtype == torch.float64
    assert potential.hyperparameters["dtype"] == "float64"


def test_record_is_that_of_the_run(trained, tmp_path):
    assert training_record(trained / "best.ckpt")["frames"] == {"train": 40, "validation": 8, "test": 8}
    shutil.copy(trained / "potential.pt", tmp_path / "other.pt")
    shutil.copy(trained / "metrics.json", tmp_path)
    assert training_record(tmp_path / "other.pt") is None  # the metrics.json beside it may be of anything


@pytest.mark.parametrize("given", ["nothing", "nothing.ckpt"])
def test_missing_models_are_named(tmp_path, given):
    with pytest.raises(FileNotFoundError, match=rf"model='.*{given}': no such file or folder"):
        load_trained(tmp_path / given)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds neither potential\.pt nor best\.ckpt"):
        load_trained(tmp_path)


def test_the_folder_of_a_committee_leads_to_its_members(tmp_path):
    (tmp_path / "member-0").mkdir()
    (tmp_path / "member-0" / "best.ckpt").touch()
    with pytest.raises(FileNotFoundError, match=r"model='.*' is the folder of a committee: .* such as .*member-0"):
        load_trained(tmp_path)


@pytest.mark.parametrize("name", ["model.pt", "model.ckpt"])
def test_foreign_files_are_named(tmp_path, name):
    (tmp_path / name).write_text("words")
    with pytest.raises(ValueError, match=rf"^model.*{name}.*cut short"):
        load_trained(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {}},
        {"state_dict": {}, "hyper_parameters": {"learning_rate": 1.0}},
        {"state_dict": {"readout.weight": torch.ones(1)}, "hyper_parameters": {"potential": {}}},
    ],
)
def test_checkpoints_of_other_models_are_named(tmp_path, content):
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other\.ckpt' is not the checkpoint of a potential"):
        load_trained(tmp_path / "other.ckpt")


def test_a_model_outside_a_run_folder_is_named(trained, tmp_path):
    shutil.copy(trained / "potential.pt", tmp_path)
    with pytest.raises(ValueError, match=r"lies in no run folder, whose config\.yaml"):
        run_folder(tmp_path / "potential.pt")


@pytest.mark.parametrize("device", ["nowhere", "cuda:99"])
def test_impossible_devices_are_named(device):
    with pytest.raises(ValueError, match=rf"device='{device}' cannot be used here"):
        ComputeOptions(device=device)


def test_auto_takes_a_gpu_if_there_is_one():
    assert ComputeOptions().torch_device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert ComputeOptions(device="cpu").torch_device.type == "cpu"
