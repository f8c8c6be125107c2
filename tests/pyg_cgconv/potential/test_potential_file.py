import pytest
import torch

from pyg_cgconv import Potential
from pyg_cgconv.potential import _file

METADATA = {"data": "ethanol", "frames": {"train": 800}, "errors": [4.1, 17.1], "note": None}


@pytest.fixture
def potential() -> Potential:
    torch.manual_seed(1)
    potential = Potential(["H", "O"], 3.0, channels=2, lmax=1, layers=1, num_radial=3, radial_hidden=(4,))
    potential.metadata = METADATA
    return potential


@pytest.fixture
def file(potential, tmp_path):
    potential.save(tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_weights_and_metadata_come_back(potential, file):
    loaded = Potential.load(file)
    assert loaded.metadata == METADATA
    assert loaded.hyperparameters == potential.hyperparameters
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in potential.state_dict().items())


def test_metadata_is_empty_at_first():
    assert Potential(["H"], 3.0, channels=1, lmax=0, layers=1).metadata == {}


def test_the_file_names_its_format(file):
    saved = torch.load(file, weights_only=True)
    assert (saved["format"], saved["format_version"]) == ("pyg_cgconv.Potential", 2)


@pytest.mark.parametrize("metadata", [{"weights": torch.zeros(2)}, {"cutoff": object()}])
def test_metadata_that_no_file_should_hold(potential, tmp_path, metadata):
    potential.metadata = metadata
    with pytest.raises(TypeError, match=r"^metadata: expected a dict of strings, numbers, lists and dicts"):
        potential.save(tmp_path / "model.pt")


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_a_file_cut_short_is_refused_by_name(file, kept):
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"model\.pt' is not a file that Potential\.save wrote: it is cut short or"):
        Potential.load(file)


@pytest.mark.parametrize("content", [{"state_dict": {}, "hyper_parameters": {}}, {"format": "other"}, [1, 2]])
def test_a_foreign_file_is_refused_by_name(tmp_path, content):
    torch.save(content, tmp_path / "best.ckpt")
    with pytest.raises(ValueError, match=r"best\.ckpt' is not a file that Potential\.save wrote.*train export"):
        Potential.load(tmp_path / "best.ckpt")


def test_a_later_format_is_refused_by_name(potential, file, monkeypatch):
    monkeypatch.setattr(_file, "FORMAT_VERSION", 3)
    potential.save(file)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"model\.pt' has format version 3, this program reads 2 and earlier: install"):
        Potential.load(file)


def test_the_first_format_is_read(potential, file):
    saved = torch.load(file, weights_only=True)
    for name in ("products", "radial_species"):  # which it did not know
        del saved["hyperparameters"][name]
    torch.save({**saved, "format_version": 1}, file)
    assert Potential.load(file).hyperparameters == potential.hyperparameters


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt"):
        Potential.load(tmp_path / "nothing.pt")
