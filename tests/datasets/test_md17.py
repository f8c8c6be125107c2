import tarfile

import numpy as np
import pytest
import torch
from ase import units
from torch_geometric.datasets import md17 as pyg_md17

from datasets import MD17
from pyg_cgconv.potential import RadiusGraph

KCAL_PER_MOL = units.kcal / units.mol


pytestmark = pytest.mark.usefixtures("no_network")


def files(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*"))


def assert_holds(dataset, arrays):
    assert len(dataset) == len(arrays["coords"])
    for item, pos, energy, forces in zip(dataset, arrays["coords"], arrays["energies"], arrays["forces"], strict=True):
        assert item.z.tolist() == [8, 1, 1]
        assert torch.equal(item.pos, torch.tensor(pos))
        assert item.energy.item() == pytest.approx(energy * KCAL_PER_MOL, rel=1e-14)
        assert torch.allclose(item.forces, torch.tensor(forces * KCAL_PER_MOL), rtol=1e-14, atol=0)


@pytest.mark.parametrize("folder", [".", "rmd17", "npz_data"])
def test_unpacked_archive(archive, arrays, folder):
    """The folder above the archive, the archive, or the folder of the npz files: all are `root`."""
    root = archive
    if folder == "rmd17":
        (archive / "rmd17").mkdir()
        for part in ("npz_data", "splits"):
            (archive / part).rename(archive / "rmd17" / part)
    elif folder == "npz_data":
        root = archive / folder
    before = files(archive)
    dataset = MD17(root, pre_transform=RadiusGraph(2.0))
    assert_holds(dataset, arrays)
    assert dataset.published_split()[0].tolist() == [4, 0, 2]
    assert dataset[0].edge_index is not None
    assert files(archive) == before  # nothing is written


def test_layout_of_pyg(archive, arrays):
    (archive / "raw" / "rmd17").mkdir(parents=True)
    for part in ("npz_data", "splits"):
        (archive / part).rename(archive / "raw" / "rmd17" / part)
    before = files(archive)
    dataset = MD17(str(archive))
    assert_holds(dataset, arrays)
    assert dataset.published_split()[1].tolist() == [1, 3]
    assert files(archive) == before


@pytest.mark.parametrize("file", ["md17_ethanol.npz", "ethanol/raw/md17_ethanol.npz"])
def test_original(tmp_path, arrays, file):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    md17 = {
        "z": arrays["nuclear_charges"],
        "R": arrays["coords"],
        "E": arrays["energies"][:, None],
        "F": arrays["forces"],
    }
    np.savez(tmp_path / file, **md17, name="ethanol", theory="dft")
    dataset = MD17(tmp_path, "ethanol", revised=False)
    assert_holds(dataset, arrays)
    with pytest.raises(ValueError, match="published_split: MD17 has none, only rMD17"):
        dataset.published_split()


def test_energies_keep_what_float32_loses(archive, arrays):
    energy = torch.cat([frame.energy for frame in MD17(archive)])
    assert energy.dtype == torch.float64
    assert (energy - torch.tensor(arrays["energies"] * KCAL_PER_MOL)).abs().max() < 1e-11
    assert (energy.float().double() - energy).abs().max() > 1e-6


def test_published_splits(archive):
    dataset = MD17(archive)
    for number in range(1, 6):
        train, test = dataset.published_split(number)
        assert train.tolist() == [4, 0, 2]  # in the file's order
        assert test.tolist() == [1 if number == 1 else 5, 3]
    assert torch.equal(dataset[train][0].pos, dataset[4].pos)


@pytest.mark.parametrize("number", [0, 6, "01"])
def test_split_that_is_not_published(archive, number):
    with pytest.raises(ValueError, match=f"number: rMD17 has splits 1 to 5, got {number!r}"):
        MD17(archive).published_split(number)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty file"),
        ("0\ntwo\n", "expected one frame number a line"),
        ("0,2\n", "expected one frame number a line"),
        ("0\n6\n", "frames 0 to 6, but the npz file has frames 0 to 5"),
        ("-1\n", "frames -1 to -1, but"),
        ("0\n0\n", "occurs twice"),
        ("0\n3\n", "both in train and in test, such as 3"),
    ],
)
def test_split_file_that_cannot_be(archive, text, reason):
    (archive / "splits" / "index_train_02.csv").write_text(text)
    with pytest.raises(ValueError, match=reason) as refusal:
        MD17(archive).published_split(2)
    assert str(archive) in str(refusal.value)


def test_missing_split_file(archive):
    (archive / "splits" / "index_test_03.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"index_test_03\.csv: no such file .*random_split"):
        MD17(archive).published_split(3)


def test_published_split_of_a_selection(archive):
    filtered = MD17(archive, pre_filter=lambda frame: frame.pos[0, 0].item() > 0)
    for selection in (MD17(archive)[:4], MD17(archive).shuffle(), filtered):
        with pytest.raises(
            ValueError, match=r"numbers the 6 frames of .*; split before filtering, shuffling or selecting"
        ):
            selection.published_split()


def test_unknown_molecule(archive):
    with pytest.raises(ValueError, match=r"molecule: rMD17 has \['benzene', .*'azobenzene'\], got 'methane'"):
        MD17(archive, "methane")
    with pytest.raises(ValueError, match="got 'ethanol CCSD"):
        MD17(archive, "ethanol CCSD(T)", revised=False)


def test_molecules():
    assert len(MD17.molecules(revised=True)) == 10
    assert set(MD17.molecules(revised=False)) == {*MD17.molecules(revised=True), "benzene FHI-aims"}


def test_file_that_is_nowhere(archive):
    before = files(archive)
    with pytest.raises(FileNotFoundError, match=r"no rmd17_aspirin\.npz in it.*no network for https://.*as `root`"):
        MD17(archive, "aspirin")
    assert files(archive) == before


def test_original_file_where_revised_is_expected(archive, arrays):
    path = archive / "npz_data" / "rmd17_ethanol.npz"
    np.savez(path, z=arrays["nuclear_charges"], R=arrays["coords"], E=arrays["energies"], F=arrays["forces"])
    with pytest.raises(ValueError, match=r"rmd17_ethanol\.npz: no array 'nuclear_charges', .*`revised`"):
        MD17(archive)


def test_download(archive, arrays, tmp_path_factory, monkeypatch):
    """PyG's own download and unpacking, from a copy of the archive instead of its address."""

    def copied(url, folder, **options):
        assert "rmd17.tar.bz2" in url
        with tarfile.open(f"{folder}/file", "w:bz2") as tar:
            tar.add(archive, "rmd17")
        return f"{folder}/file"

    monkeypatch.setattr(pyg_md17, "download_url", copied)
    root = tmp_path_factory.mktemp("downloaded")
    dataset = MD17(root)
    assert_holds(dataset, arrays)
    assert dataset.published_split()[0].tolist() == [4, 0, 2]
    assert not list(root.rglob("processed"))
    monkeypatch.setattr(pyg_md17, "download_url", None)
    assert_holds(MD17(root), arrays)  # the second time it is there


def test_download_cut_short(tmp_path, monkeypatch):
    def cut_short(url, folder, **options):
        with open(f"{folder}/file", "wb") as file:
            file.write(b"BZh9")
        return f"{folder}/file"

    monkeypatch.setattr(pyg_md17, "download_url", cut_short)
    with pytest.raises(ValueError, match=r"raw: what was downloaded is broken .*remove it and try again"):
        MD17(tmp_path)


def test_repr(archive):
    assert repr(MD17(archive)) == "MD17('ethanol', revised=True, frames=6)"
