import errno
import io
from pathlib import Path

import pytest
import torch

from pyg_cgconv import Potential
from pyg_cgconv.potential import _file

NEW = ("heads", "zbl", "properties")  # in format 3
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
    assert (saved["format"], saved["format_version"]) == ("pyg_cgconv.Potential", 3)


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
    monkeypatch.setattr(_file, "FORMAT_VERSION", 4)
    potential.save(file)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"model\.pt' has format version 4, this program reads 3 and earlier: install"):
        Potential.load(file)


@pytest.mark.parametrize(("version", "unknown"), [(1, ("products", "radial_species", *NEW)), (2, NEW)])
def test_earlier_formats_are_read(potential, file, version, unknown):
    saved = torch.load(file, weights_only=True)
    for name in unknown:  # which it did not know
        del saved["hyperparameters"][name]
    torch.save({**saved, "format_version": version}, file)
    assert Potential.load(file).hyperparameters == potential.hyperparameters


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt': no such file or folder; expected a file that"):
        Potential.load(tmp_path / "nothing.pt")


def test_a_run_folder_stands_for_its_potential(potential, file):
    file.rename(file.parent / "potential.pt")
    assert Potential.load(file.parent).hyperparameters == potential.hyperparameters


def test_a_folder_without_a_potential_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"potential\.pt' is not a file .*no such file in the folder.*train export"):
        Potential.load(tmp_path)


def test_a_file_that_cannot_be_written_leaves_the_one_before(potential, file, monkeypatch):
    content = file.read_bytes()

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left on device"):
        potential.save(file)
    assert file.read_bytes() == content
    assert [path.name for path in file.parent.iterdir()] == [file.name]


class WritesAFile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_nothing_in_a_file_is_executed(file, tmp_path):
    saved = torch.load(file, weights_only=True)
    torch.save({**saved, "metadata": WritesAFile(tmp_path / "written")}, file)
    with pytest.raises(ValueError, match=r"model\.pt' is not a file that Potential\.save wrote"):
        Potential.load(file)
    assert not (tmp_path / "written").exists()


def test_what_is_open_is_a_file_too(potential, file):
    content = io.BytesIO()
    potential.save(content)
    content.seek(0)
    assert Potential.load(content).state_dict().keys() == potential.state_dict().keys()
    with pytest.raises(ValueError, match=r"BytesIO.*is not a file that Potential\.save wrote"):
        Potential.load(io.BytesIO(content.getvalue()[:100]))
