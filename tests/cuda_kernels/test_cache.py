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


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PYG_CGCONV_CACHE", str(tmp_path / "file" / "kernels"))
    cache._warn_unwritable.cache_clear()
    with pytest.warns(UserWarning, match="PYG_CGCONV_CACHE"):
        cache.store("name", b"code")
    assert cache.load("name") is None


def test_no_temporary_files_are_left(folder):
    cache.store("name", b"code")
    assert os.listdir(folder) == ["name"]
