import os
from concurrent.futures import ProcessPoolExecutor

import pytest

from cuda_kernels import cache


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PYG_CGCONV_CACHE", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


def test_what_is_stored_is_loaded():
    assert cache.load("name") is None
    cache.store("name", b"code")
    assert cache.load("name") == b"code"


def test_damaged_files_are_not_loaded(folder):
    cache.store("name", b"code" * 100)
    content = (folder / "name").read_bytes()
    for damaged in (content[:-1], b"", content[:40] + b"x" + content[41:]):
        (folder / "name").write_bytes(damaged)
        assert cache.load("name") is None


def test_keys_tell_contents_apart():
    assert cache.key("a", 1) == cache.key("a", 1)
    assert len({cache.key("a", 1), cache.key("a", 2), cache.key("a1"), cache.key(("a", 1))}) == 4


def test_keys_change_with_this_package_and_its_compilers(monkeypatch):
    before = cache.key("a")
    monkeypatch.setattr(cache, "_versions", lambda: ("another",))
    assert cache.key("a") != before


def _store_and_load(number: int) -> bool:
    cache.store("shared", bytes([number]) * 100_000)
    return len(cache.load("shared")) == 100_000


def test_processes_share_the_folder():
    with ProcessPoolExecutor(4) as pool:
        assert all(pool.map(_store_and_load, range(40)))


@pytest.fixture
def warns_again():
    cache._warn_unwritable.cache_clear()
    cache._warn_unused.cache_clear()


@pytest.mark.usefixtures("warns_again")
def test_a_folder_that_cannot_be_written_costs_one_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PYG_CGCONV_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="file is a file, not a folder.*PYG_CGCONV_CACHE") as warned:
        assert [cache.store(name, b"code") for name in ("name", "another")] == [None, None]
    assert len(warned) == 1
    assert cache.load("name") is None


@pytest.mark.usefixtures("warns_again")
@pytest.mark.parametrize("which", ["folder", "file"])
def test_what_others_can_write_is_not_loaded_and_costs_one_warning(folder, which):
    cache.store("name", b"code")
    cache.store("another", b"code")
    for path in [folder] if which == "folder" else folder.iterdir():
        path.chmod(0o770)
    with pytest.warns(UserWarning, match=f"{folder}.*chmod go-w {folder}.*PYG_CGCONV_CACHE") as warned:
        assert [cache.load(name) for name in ("name", "another")] == [None, None]
    assert len(warned) == 1


@pytest.mark.usefixtures("warns_again")
def test_nothing_is_put_into_a_folder_that_others_can_write(folder):
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.warns(UserWarning, match=f"{folder}.*mode 0777"):
        cache.store("name", b"code")
    assert not list(folder.iterdir())


def test_a_file_that_others_could_write_is_replaced(folder):
    cache.store("name", b"code")
    (folder / "name").chmod(0o666)
    cache.store("name", b"new")
    assert cache.load("name") == b"new"


def test_no_temporary_files_are_left(folder):
    cache.store("name", b"code")
    assert os.listdir(folder) == ["name"]


def test_without_the_variable_kernels_are_among_the_users_caches(tmp_path, monkeypatch):
    for value in (None, ""):
        monkeypatch.delenv("PYG_CGCONV_CACHE") if value is None else monkeypatch.setenv("PYG_CGCONV_CACHE", value)
        for name, base in (("HOME", ".cache"), ("LOCALAPPDATA", ""), ("XDG_CACHE_HOME", "")):
            monkeypatch.setenv(name, str(tmp_path / name))
            assert cache.folder() == tmp_path / name / base / "pyg_cgconv"
        for name, _ in (("XDG_CACHE_HOME", ""), ("LOCALAPPDATA", "")):
            monkeypatch.setenv(name, "not/absolute")
        assert cache.folder() == tmp_path / "HOME" / ".cache" / "pyg_cgconv"


def test_the_users_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for value, folder in (("~/x", tmp_path / "x"), ("~", tmp_path)):
        monkeypatch.setenv("PYG_CGCONV_CACHE", value)
        assert cache.folder() == folder


def test_a_relative_folder_stays_where_it_was_first_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYG_CGCONV_CACHE", "of this test/kernels")
    cache.store("name", b"code")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cache.load("name") == b"code"
    assert (tmp_path / "of this test" / "kernels" / "name").exists()


@pytest.mark.usefixtures("warns_again")
@pytest.mark.parametrize("value", [None, "", "~/x"])
def test_a_user_without_a_home_is_told_so(value, monkeypatch):
    pwd = pytest.importorskip("pwd")

    def unknown(*_):
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "PYG_CGCONV_CACHE"):
        monkeypatch.delenv(name, raising=False)
    if value is not None:
        monkeypatch.setenv("PYG_CGCONV_CACHE", value)
    with pytest.warns(UserWarning, match="no home folder.*HOME.*PYG_CGCONV_CACHE"):
        cache.store("name", b"code")
    assert cache.load("name") is None


@pytest.mark.usefixtures("warns_again")
def test_an_unknown_user_is_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYG_CGCONV_CACHE", "~nobody-of-this-name/x")
    with pytest.warns(UserWarning, match="no user 'nobody-of-this-name'.*PYG_CGCONV_CACHE"):
        cache.store("name", b"code")
    assert not list(tmp_path.iterdir())
