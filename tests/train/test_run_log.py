"""What is said, on the screen and in ``log.txt``."""

import re
import warnings

import pytest

from train.run_log import LOG, LogFile, listening, logger, note, say, written_to


def lines(folder) -> list[str]:
    """Of the log, without the first one of each session, which has the date."""
    found = (folder / LOG).read_text().splitlines()
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d, pyg-cgconv .*, torch ", found[0])
    return [line for line in found if not re.match(r"\d{4}-\d\d-\d\d ", line)]


def test_what_is_said_is_shown_and_kept(tmp_path, capsys):
    with written_to(tmp_path):
        say("for both")
        note("for the file")
    say("later")
    assert capsys.readouterr().out == "for both\nlater\n"
    assert lines(tmp_path) == ["for both", "for the file"]


def test_what_was_said_before_there_was_a_folder_comes_first_and_once(tmp_path, capsys):
    inner = tmp_path / "member-0"
    inner.mkdir()
    with warnings.catch_warnings(record=True) as shown, listening():
        warnings.simplefilter("always")
        say("before")
        warnings.warn("odd frames", stacklevel=1)
        with written_to(tmp_path):
            say("outer")
            with written_to(inner):
                say("inner")
    assert [str(warning.message) for warning in shown] == ["odd frames"]
    assert lines(tmp_path)[:3] == ["before", "UserWarning: odd frames", "outer"]
    assert lines(tmp_path)[-1] == "inner"
    assert lines(inner) == ["inner"]
    assert capsys.readouterr().out == "before\nouter\ninner\n"


def test_a_second_session_goes_on_below(tmp_path):
    for text in ("first", "second"):
        with written_to(tmp_path):
            note(text)
    assert lines(tmp_path) == ["first", "second"]


def test_the_reason_of_an_end_is_kept(tmp_path):
    with pytest.raises(ValueError, match="diverged"), written_to(tmp_path):
        raise ValueError("the training diverged")
    assert lines(tmp_path) == ["ended by ValueError: the training diverged"]
    assert not [handler for handler in logger.handlers if isinstance(handler, LogFile)]


def test_a_full_disk_ends_the_run(tmp_path, monkeypatch):
    def full(file, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LogFile, "format", full)
    with pytest.raises(OSError, match="No space left"), written_to(tmp_path):
        pass


def test_a_run_without_progress_has_a_line_for_each_epoch_and_its_errors(trained):
    found = lines(trained)
    epochs = [line for line in found if line.startswith("epoch ")]
    assert [line.split()[1] for line in epochs] == [f"{epoch}/6" for epoch in range(1, 7)]
    for name in ("loss", "val loss", "val energy meV", "val forces meV/A"):
        assert all(re.search(rf" {name} [\d.e+-]+ ", line) for line in epochs), name
    assert all(re.search(r"  [\d:]+ elapsed, [\d:]+ left$", line) for line in epochs)
    assert any(line.startswith("this potential, test frames") for line in found)
