"""Frames of files that are kept for the next time."""

import os

import pytest
import torch

from datasets import AtomsFile
from pyg_cgconv.potential import RadiusGraph

ase = pytest.importorskip("ase")
from ase.build import molecule  # noqa: E402

from .labelled_atoms import labelled, molecules, written  # noqa: E402

CUTOFF = 3.0


@pytest.fixture
def xyz(tmp_path):
    return written(tmp_path / "molecules.xyz", molecules())


class Below:
    """A pre_filter with a setting."""

    def __init__(self, num_atoms):
        self.num_atoms = num_atoms

    def __call__(self, frame):
        return frame.num_nodes < self.num_atoms


def options(cache, **changed):
    return {"cache": cache, "pre_transform": RadiusGraph(CUTOFF), "pre_filter": Below(5), **changed}


def test_nothing_is_written_without_a_cache(xyz):
    AtomsFile(xyz, pre_transform=RadiusGraph(CUTOFF))
    assert list(xyz.parent.rglob("*")) == [xyz]


def test_cache_gives_the_same_frames(xyz, tmp_path):
    made, kept = (AtomsFile(xyz, **options(tmp_path / "cache")) for _ in range(2))
    assert len(made) == len(kept) == 3
    assert made.num_frames_read == kept.num_frames_read == 4
    for one, other in zip(made, kept, strict=True):
        assert sorted(one.keys()) == sorted(other.keys())
        assert all(torch.equal(value, other[key]) for key, value in one.to_dict().items())


def test_cache_of_one_frame(tmp_path):
    path = written(tmp_path / "one.xyz", molecules()[0])
    made, kept = (AtomsFile(path, cache=tmp_path / "cache") for _ in range(2))
    assert len(kept) == 1
    assert torch.equal(made[0].pos, kept[0].pos)


def test_cache_spares_reading_and_neighbours(xyz, tmp_path, monkeypatch):
    AtomsFile(xyz, **options(tmp_path))
    monkeypatch.setattr(ase.io, "iread", None)
    monkeypatch.setattr(RadiusGraph, "forward", None)
    assert AtomsFile(xyz, **options(tmp_path))[0].edge_index is not None


def test_cache_survives_a_copy_elsewhere(xyz, tmp_path, monkeypatch):
    AtomsFile(xyz, **options(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    moved = xyz.rename(tmp_path / "elsewhere" / xyz.name)
    monkeypatch.setattr(ase.io, "iread", None)
    assert len(AtomsFile(moved, **options(tmp_path))) == 3


def test_file_that_changes_in_content_only(xyz, tmp_path):
    """Same size, same time of modification."""
    before, stat = AtomsFile(xyz, cache=tmp_path)[0].pos, xyz.stat()
    xyz.write_text(xyz.read_text().replace("0.11926200", "0.11926300"))
    os.utime(xyz, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = AtomsFile(xyz, cache=tmp_path)[0].pos
    assert (xyz.stat().st_size, xyz.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert (after - before).abs().max().item() == pytest.approx(1e-6, rel=1e-3)


@pytest.mark.parametrize(
    ("changed", "differs"),
    [
        ({"pre_transform": RadiusGraph(1.2)}, lambda item: item.edge_cutoff.item() == 1.2),
        ({"pre_transform": None}, lambda item: "edge_index" not in item),
        ({"energy_key": "free_energy"}, lambda item: item.energy.item() == -5.5),
        ({"labels": ("energy",)}, lambda item: "forces" not in item),
        ({"pre_filter": Below(4)}, lambda item: item.num_nodes == 3),
    ],
    ids=["cutoff", "no pre_transform", "key", "labels", "pre_filter"],
)
def test_other_arguments_are_read_anew(tmp_path, changed, differs):
    images = [labelled(molecule(name), free_energy=-5.5) for name in ("NH3", "H2O")]
    path = written(tmp_path / "frames.traj", images)
    assert not differs(AtomsFile(path, **options(tmp_path))[0])
    assert differs(AtomsFile(path, **options(tmp_path, **changed))[0])
    assert not differs(AtomsFile(path, **options(tmp_path))[0])


def test_order_of_the_files_counts(tmp_path):
    paths = [written(tmp_path / f"{number}.xyz", atoms) for number, atoms in enumerate(molecules())]
    forward, backward = AtomsFile(paths, cache=tmp_path), AtomsFile(paths[::-1], cache=tmp_path)
    assert forward[0].energy == backward[3].energy != backward[0].energy


@pytest.mark.parametrize("argument", ["pre_transform", "pre_filter"])
def test_function_is_refused_with_a_cache(xyz, tmp_path, argument):
    with pytest.raises(ValueError, match=rf"{argument}: the cache cannot tell .*leave `cache` out"):
        AtomsFile(xyz, cache=tmp_path / "cache", **{argument: lambda frame: frame})
    assert len(AtomsFile(xyz, **{argument: lambda frame: frame})) == 4


def test_broken_cache(xyz, tmp_path):
    AtomsFile(xyz, cache=tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    with pytest.raises(ValueError, match=rf"{kept.name}: the cache file is broken .*remove it"):
        AtomsFile(xyz, cache=tmp_path / "cache")


def test_failed_read_leaves_no_cache(xyz, tmp_path):
    with pytest.raises(ValueError, match="no energy"):
        AtomsFile(xyz, cache=tmp_path / "cache", energy_key="absent")
    assert not (tmp_path / "cache").exists()
