"""Run folders that somebody else made: whatever is in their files, it is data."""

import pytest
import torch

from train.checkpoints import BEST, LAST, AtomicCheckpointIO, read_checkpoint
from train.cli import main, parse
from train.trained import load_trained

from .processes import forked


class WritesAFile:
    """Unpickled, it makes the file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def foreign(trained, tmp_path):
    """A run folder whose checkpoints would make the file ``written``, and are those of a training otherwise."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    (folder / "config.yaml").write_text(parse(["md17"])[2])
    for name in (BEST, LAST):
        checkpoint = torch.load(trained / name)
        torch.save({**checkpoint, "hparams_name": WritesAFile(tmp_path / "written")}, folder / name)
    return folder


def test_who_unpickles_it_writes_the_file(foreign, tmp_path):
    """Otherwise the other tests would show nothing."""
    torch.load(foreign / LAST, weights_only=False)
    assert (tmp_path / "written").exists()


@pytest.mark.parametrize(
    "read",
    [
        lambda folder: main(["md17", "--resume", str(folder)]),
        lambda folder: AtomicCheckpointIO().load_checkpoint(folder / LAST, weights_only=False),
        lambda folder: load_trained(folder),
        lambda folder: main(["export", str(folder), "--output", str(folder / "model.pt")]),
    ],
    ids=["resume", "Lightning", "load_trained", "export"],
)
def test_nothing_is_executed_and_the_file_is_named(foreign, tmp_path, read):
    with pytest.raises(ValueError, match=r"\.ckpt' is no checkpoint .* Nothing in it was executed"):
        read(foreign)
    assert not (tmp_path / "written").exists()


@pytest.mark.slow
def test_a_shell_gets_a_sentence(foreign, tmp_path):
    process = forked(f"md17 --resume {foreign}")
    _, mistakes = process.communicate()
    assert process.returncode == 1
    assert mistakes.startswith("error: resume='")
    assert "Traceback" not in mistakes
    assert not (tmp_path / "written").exists()


def test_checkpoints_hold_nothing_but_data(trained):
    for name in (BEST, LAST):
        assert read_checkpoint("resume", trained / name)["state_dict"]


def test_what_is_missing_is_named(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / LAST)
    with pytest.raises(ValueError, match=r"it has no loops, epoch\."):
        read_checkpoint("resume", tmp_path / LAST, ["loops", "state_dict", "epoch"])
