import errno

import pytest

from train.outputs import create_results_folder, in_a_sentence, make_folder, refuse_existing, writing_to, written_whole

FULL = OSError(errno.ENOSPC, "No space left on device")


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"run_dir='.*file' cannot be made \(it is a file\)"):
        make_folder(tmp_path / "file")
    with pytest.raises(ValueError, match=r"run_dir='.*deeper' cannot be made \(Not a directory\)"):
        create_results_folder(tmp_path / "file" / "deeper", "md", "H2")


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def refused(dir):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("train.outputs.tempfile.TemporaryFile", refused)
    with pytest.raises(ValueError, match=r"run_dir='.*run' cannot be written \(Permission denied\)"):
        make_folder(tmp_path / "run")
    with pytest.raises(ValueError, match=r"output='.*model\.pt' cannot be written \(Permission denied\)"):
        refuse_existing("output", tmp_path / "model.pt")


def test_a_file_that_is_not_finished_leaves_the_one_before(tmp_path):
    (tmp_path / "file").write_text("before")

    def fails_half_way():
        with written_whole(tmp_path / "file") as unfinished:
            unfinished.write_text("half")
            raise FULL

    with pytest.raises(OSError, match="No space left"):
        fails_half_way()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "before")]


def test_a_full_disk_is_told_by_the_folder(tmp_path):
    with (
        pytest.raises(OSError, match=r"cannot write to '.*': No space left on device\. What was whole"),
        writing_to(tmp_path),
    ):
        raise FULL


def test_other_errors_pass(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^gone$"), writing_to(tmp_path):
        raise FileNotFoundError("gone")


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        (ValueError("lr=0"), "lr=0"),
        (FULL, "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "a.xyz"), "'a.xyz': Permission denied"),
        (FileNotFoundError("model='x': no such file"), "model='x': no such file"),
    ],
)
def test_errors_are_sentences(mistake, sentence):
    assert in_a_sentence(mistake) == sentence
