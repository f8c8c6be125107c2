import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import units
from torch_geometric.datasets import md17 as pyg_md17

from datasets import MD17CCSD
from pyg_cgconv.potential import RadiusGraph

KCAL_PER_MOL = units.kcal / units.mol


pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture
def published(tmp_path, arrays):
    """Four training frames and two test frames of ethanol, as they are published."""
    for part, frames in (("train", slice(0, 4)), ("test", slice(4, 6))):
        np.savez(
            tmp_path / f"ethanol_ccsd_t-{part}.npz",
            z=arrays["nuclear_charges"],
            R=arrays["coords"][frames],
            E=arrays["energies"][frames, None],
            F=arrays["forces"][frames],
        )
    return tmp_path


def assert_holds(dataset, arrays):
    assert len(dataset) == 6
    for item, pos, energy, forces in zip(dataset, arrays["coords"], arrays["energies"], arrays["forces"], strict=True):
        assert item.z.tolist() == [8, 1, 1]
        assert torch.equal(item.pos, torch.tensor(pos))
        assert item.energy.item() == pytest.approx(energy * KCAL_PER_MOL, rel=1e-14)
        assert torch.allclose(item.forces, torch.tensor(forces * KCAL_PER_MOL), rtol=1e-14, atol=0)
    train, test = dataset.published_split()
    assert (train.tolist(), test.tolist()) == ([0, 1, 2, 3], [4, 5])


def test_training_frames_come_before_test_frames(published, arrays):
    before = sorted(published.rglob("*"))
    dataset = MD17CCSD(published)
    assert_holds(dataset, arrays)
    assert (dataset.level, repr(dataset)) == ("CCSD(T)", "MD17CCSD('ethanol', level='CCSD(T)', frames=6)")
    assert sorted(published.rglob("*")) == before


def test_layout_of_pyg(published, arrays):
    folder = published / "ethanol CCSD(T)" / "raw"
    folder.mkdir(parents=True)
    for part in ("train", "test"):
        (published / f"ethanol_ccsd_t-{part}.npz").rename(folder / f"ethanol_ccsd_t-{part}.npz")
    assert_holds(MD17CCSD(published), arrays)


def test_download(published, arrays, tmp_path_factory, monkeypatch):
    """PyG's own download and unpacking, from a copy of the archive instead of its address."""

    def copied(url, folder, **options):
        assert url.endswith("/ethanol_ccsd_t.zip")
        with zipfile.ZipFile(f"{folder}/ethanol_ccsd_t.zip", "w") as archive:
            for file in published.iterdir():
                archive.write(file, file.name)
        return f"{folder}/ethanol_ccsd_t.zip"

    monkeypatch.setattr(pyg_md17, "download_url", copied)
    root = tmp_path_factory.mktemp("downloaded")
    assert_holds(MD17CCSD(root), arrays)
    monkeypatch.setattr(pyg_md17, "download_url", None)
    assert_holds(MD17CCSD(root), arrays)  # the second time it is there


def test_download_that_is_no_archive(tmp_path, monkeypatch):
    def broken(url, folder, **options):
        path = Path(folder) / "ethanol_ccsd_t.zip"
        path.write_text("moved elsewhere")
        return str(path)

    monkeypatch.setattr(pyg_md17, "download_url", broken)
    with pytest.raises(ValueError, match=r"raw: what was downloaded is broken .*remove it and try again"):
        MD17CCSD(tmp_path)


def test_one_of_the_files_is_missing(published):
    (published / "ethanol_ccsd_t-test.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"no ethanol_ccsd_t\.zip in it.*no network for .*as `root`"):
        MD17CCSD(published)


def test_file_cut_short(published):
    path = published / "ethanol_ccsd_t-test.npz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"ethanol_ccsd_t-test\.npz: not a whole npz file"):
        MD17CCSD(published)


def test_files_of_two_molecules(published):
    path = published / "ethanol_ccsd_t-test.npz"
    np.savez(path, **{**np.load(path), "z": np.array([8, 1, 6])})
    with pytest.raises(
        ValueError, match=r"-test\.npz: array 'z' is \[8, 1, 6\], expected that of ethanol_ccsd_t-train"
    ):
        MD17CCSD(published)


def test_published_split_of_a_selection(published):
    with pytest.raises(ValueError, match=r"numbers the 6 frames of .*; split before filtering"):
        MD17CCSD(published)[:3].published_split()


def test_neighbors_are_kept(published, tmp_path):
    options = dict(pre_transform=RadiusGraph(2.0), cache=tmp_path / "cache")
    first = MD17CCSD(published, **options)
    again = MD17CCSD(published, **options)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert all(torch.equal(a.edge_index, b.edge_index) for a, b in zip(first, again, strict=True))
    assert again.published_split()[1].tolist() == [4, 5]


def test_molecules(published):
    assert MD17CCSD.molecules() == ["aspirin", "benzene", "ethanol", "malonaldehyde", "toluene"]
    with pytest.raises(ValueError, match=r"molecule: coupled-cluster frames are of .*'toluene'.*, got 'uracil'"):
        MD17CCSD(published, "uracil")


def test_aspirin_is_of_another_level(published):
    for part in ("train", "test"):
        shutil.copy(published / f"ethanol_ccsd_t-{part}.npz", published / f"aspirin_ccsd-{part}.npz")
    assert MD17CCSD(published, "aspirin").level == "CCSD"
