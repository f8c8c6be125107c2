"""Who may change a file or folder. /tmp, where the tests' folders are, can be written by everyone, but is sticky."""

import os
from pathlib import Path

import pytest

from cuda_kernels import ownership
from cuda_kernels.ownership import Untrusted

pytestmark = pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows has no user numbers")
is_root = hasattr(os, "getuid") and os.getuid() == 0
needs_root = pytest.mark.skipif(not is_root, reason="only root gives files away")
SOMEBODY = 54321


@pytest.fixture
def folder(tmp_path) -> Path:
    made = tmp_path / "above" / "kernels"
    ownership.make_folder(made)
    return made


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.mark.parametrize("umask", [0, 0o777])
def test_what_is_made_is_private_whatever_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        ownership.make_folder(tmp_path / "above" / "kernels")
        ownership.write(tmp_path / "above" / "kernels" / "file", b"content")
    finally:
        os.umask(before)
    made = [tmp_path / "above", tmp_path / "above" / "kernels", tmp_path / "above" / "kernels" / "file"]
    assert [mode(path) for path in made] == [0o700, 0o700, 0o600]


def test_a_folder_that_is_there_keeps_its_mode(folder):
    folder.chmod(0o755)
    ownership.make_folder(folder)
    assert mode(folder) == 0o755


@pytest.mark.parametrize("bits", [0o770, 0o720, 0o702, 0o1777])
def test_a_folder_that_others_can_write_is_named_with_the_remedy(folder, bits):
    folder.chmod(bits)
    with pytest.raises(Untrusted, match=f"{folder} .*mode {bits:04o}.*chmod go-w {folder}"):
        ownership.check_folder(folder)


@pytest.mark.parametrize("bits", [0o770, 0o707])
def test_nor_may_others_write_a_folder_above(folder, bits):
    folder.parent.chmod(bits)
    with pytest.raises(Untrusted, match=f"{folder.parent} "):
        ownership.check_folder(folder)
    with pytest.raises(Untrusted, match=f"{folder.parent} "):
        ownership.make_folder(folder.parent / "another")
    assert not (folder.parent / "another").exists()


def test_a_folder_above_may_be_shared_if_it_is_sticky(folder):
    folder.parent.chmod(0o1777)
    ownership.check_folder(folder)
    ownership.make_folder(folder.parent / "another")


def test_a_symbolic_link_is_as_good_as_what_it_leads_through(folder, tmp_path):
    (tmp_path / "link").symlink_to(Path("open", "next"))
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "next").symlink_to(folder)
    (tmp_path / "open").chmod(0o700)
    ownership.check_folder(tmp_path / "link")
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(Untrusted, match="/open "):
        ownership.check_folder(tmp_path / "link")


@needs_root
def test_nothing_may_belong_to_another_user(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    os.chown(tmp_path / "link", SOMEBODY, 0, follow_symlinks=False)
    with pytest.raises(Untrusted, match=f"/link belongs to user {SOMEBODY}"):
        ownership.check_folder(tmp_path / "link")
    for path in (folder.parent, folder):
        os.chown(path, SOMEBODY, 0)
        with pytest.raises(Untrusted, match=f"{path} belongs to user {SOMEBODY}"):
            ownership.check_folder(folder)
        os.chown(path, 0, 0)


def test_what_belongs_to_root_will_do(monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: SOMEBODY)
    ownership.check_folder(Path("/"))


def test_a_file_where_a_folder_should_be_is_said_to_be_one(folder):
    ownership.write(folder / "file", b"")
    for path in (folder / "file", folder / "file" / "below"):
        with pytest.raises(NotADirectoryError, match="file is a file, not a folder"):
            ownership.make_folder(path)


def test_links_that_lead_nowhere_are_errors_of_the_system(tmp_path):
    for name, target in (("circle", "circle"), ("dangling", "nothing")):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(OSError, match=name):
            ownership.make_folder(tmp_path / name)


@pytest.mark.parametrize("bits", [0o620, 0o602])
def test_a_file_that_others_can_write_is_not_read(folder, bits):
    ownership.write(folder / "file", b"content")
    assert ownership.read(folder / "file") == b"content"
    (folder / "file").chmod(bits)
    with pytest.raises(Untrusted, match=f"mode {bits:04o}"):
        ownership.read(folder / "file")


@needs_root
def test_a_file_of_another_user_is_not_read(folder):
    ownership.write(folder / "file", b"content")
    os.chown(folder / "file", SOMEBODY, 0)
    with pytest.raises(Untrusted, match=f"user {SOMEBODY}"):
        ownership.read(folder / "file")


def test_a_file_is_no_symbolic_link(folder, tmp_path):
    (tmp_path / "elsewhere").write_bytes(b"content")
    (folder / "file").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="file"):
        ownership.read(folder / "file")
    ownership.write(folder / "file", b"own")
    assert ownership.read(folder / "file") == b"own"
    assert (tmp_path / "elsewhere").read_bytes() == b"content"


def test_without_user_numbers_nothing_is_checked(folder, monkeypatch):
    folder.chmod(0o777)
    monkeypatch.delattr(os, "getuid")
    ownership.check_folder(folder)
