from pathlib import Path

import pytest
import torch
from ase import units
from torch_geometric.datasets import qm9 as pyg_qm9

from datasets import QM9, FrameDataset, QM9Sample, qm9_files
from datasets.qm9_targets import TARGETS
from pyg_cgconv.potential import RadiusGraph

from .qm9_molecules import METHANE, WATER, write_pack, write_raw


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No network, no installed package, and three molecules are all of GDB-9, until a test says otherwise."""

    def refused(url, folder, **options):
        raise OSError(f"no network for {url}")

    monkeypatch.setattr(qm9_files, "download_url", refused)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name, count in (("NUM_PUBLISHED", 3), ("NUM_UNCHARACTERIZED", 1), ("NUM_MOLECULES", 2)):
        monkeypatch.setattr(qm9_files, name, count)


@pytest.fixture
def pack(tmp_path, monkeypatch):
    write_pack(tmp_path)
    monkeypatch.undo()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(qm9_files, "NUM_MOLECULES", 2)
    return tmp_path / "qm9pack" / "data"


def assert_holds_methane_and_water(dataset):
    assert len(dataset) == 2
    hartree = dict.fromkeys(("homo", "lumo", "gap", "zpve", "U0", "U", "H", "G"), units.Hartree)
    for item, number, numbers, published in zip(
        dataset, (1, 3), ([6, 1, 1, 1, 1], [8, 1, 1]), (METHANE, WATER), strict=True
    ):
        assert item.number.tolist() == [number]
        assert item.z.tolist() == numbers
        assert item.pos.tolist() == published[1]
        assert item.y.dtype == item.pos.dtype == torch.float64
        assert item.y.shape == (1, 12)
        for name, value in zip(TARGETS, published[2], strict=True):
            found = item.y[0, dataset.target_index(name)].item()
            assert found == pytest.approx(value * hartree.get(name, 1.0), rel=1e-14), name


@pytest.mark.parametrize("folder", [".", "raw"])
def test_raw_layout_of_pyg(tmp_path, folder):
    write_raw(tmp_path / folder)
    before = sorted(tmp_path.rglob("*"))
    dataset = QM9(tmp_path)
    assert_holds_methane_and_water(dataset)
    assert dataset.source == tmp_path / folder
    assert sorted(tmp_path.rglob("*")) == before


def test_package(pack):
    dataset = QM9()
    assert_holds_methane_and_water(dataset)
    assert dataset.source == pack


def test_files_come_before_the_package(pack, tmp_path, monkeypatch):
    for name, count in (("NUM_PUBLISHED", 3), ("NUM_UNCHARACTERIZED", 1)):
        monkeypatch.setattr(qm9_files, name, count)
    write_raw(tmp_path / "root")
    assert QM9(tmp_path / "root").source == tmp_path / "root"
    assert QM9(tmp_path / "empty").source == pack


def test_download(tmp_path, monkeypatch):
    def written(url, folder):
        from pathlib import Path

        if url == pyg_qm9.QM9.raw_url:
            write_raw(tmp_path / "published")
            name = "qm9.zip"
        else:
            assert url == pyg_qm9.QM9.raw_url2
            name = "3195404"
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / name).write_text("")
        return str(Path(folder) / name)

    def unpacked(archive, folder):
        for name in ("gdb9.sdf", "gdb9.sdf.csv"):
            (tmp_path / "published" / name).rename(f"{folder}/{name}")

    monkeypatch.setattr(qm9_files, "download_url", written)
    monkeypatch.setattr(qm9_files, "extract_zip", unpacked)
    with pytest.raises(ValueError, match=r"uncharacterized\.txt: lists 0 molecules, expected 1"):
        QM9(tmp_path / "root")  # the second download came empty
    (tmp_path / "published" / "uncharacterized.txt").rename(tmp_path / "root" / "raw" / "uncharacterized.txt")
    monkeypatch.setattr(qm9_files, "download_url", None)
    assert_holds_methane_and_water(QM9(tmp_path / "root"))


def test_nothing_to_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"download failed \(no network for https://.*pip install qm9pack"):
        QM9(tmp_path)
    with pytest.raises(FileNotFoundError, match="root: none given, and the package qm9pack is not installed"):
        QM9()


def test_a_file_is_missing(tmp_path):
    write_raw(tmp_path)
    (tmp_path / "gdb9.sdf.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"no gdb9\.sdf\.csv beside the other files"):
        QM9(tmp_path)


def changed(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        ("gdb9.sdf", "gdb_3", "gdb_7", r"gdb9\.sdf: molecule 3 is called 'gdb_7'"),
        ("gdb9.sdf", "M  END\n$$$$\ngdb_3", "M  END", r"gdb9\.sdf.* has 3 molecules|and .*gdb9\.sdf 2, expected 3"),
        ("gdb9.sdf", "0.0076 O", "0.0076 Xx", r"gdb9\.sdf: molecule 3 has atoms that cannot be read \('Xx'\)"),
        (
            "gdb9.sdf",
            "0.0076 O   0" + 11 * "  0",
            "0.0076",
            r"gdb9\.sdf: molecule 3 has fewer lines `x y z symbol` than .*'  3  2  0",
        ),
        (
            "gdb9.sdf",
            "  3  2  0",
            "  9  2  0",
            r"gdb9\.sdf: molecule 3 has fewer lines `x y z symbol` than .*'  9  2  0",
        ),
        ("gdb9.sdf", "V2000", "V3000", r"gdb9\.sdf: molecule 1 has the counts line .*expected .* V2000"),
        ("gdb9.sdf.csv", "gdb_2", "gdb_5", r"gdb9\.sdf\.csv: row 2 is of mol_id 'gdb_5'"),
        ("gdb9.sdf.csv", "-76.404702", "nan", r"gdb9\.sdf\.csv: line 4 is not whole \(a number that is not finite\)"),
        ("gdb9.sdf.csv", "mol_id,", "name,", r"gdb9\.sdf\.csv: no column mol_id; is this QM9's table\?"),
        ("uncharacterized.txt", "       2", "     200", r"uncharacterized\.txt: lists 1 molecules, expected 1 of 3"),
    ],
)
def test_file_that_is_not_what_it_should_be(tmp_path, file, old, new, reason):
    write_raw(tmp_path)
    changed(tmp_path / file, old, new)
    with pytest.raises(ValueError, match=reason) as refusal:
        QM9(tmp_path)
    assert str(tmp_path) in str(refusal.value)


@pytest.mark.parametrize(
    ("file", "kept", "reason"),
    [
        ("gdb9.sdf", 0.9, r"gdb9\.sdf: molecule 3 has no end"),
        ("gdb9.sdf.csv", 0.97, r"gdb9\.sdf\.csv: the last line has no end"),
        ("gdb9.sdf.csv", 0.9, r"gdb9\.sdf\.csv: line 4 is not whole"),
        ("gdb9.sdf.csv", 0.6, r"has 1 molecules and .* 3, expected 3 in both|is not whole"),
        ("uncharacterized.txt", 0.5, "lists 0 molecules, expected 1"),
    ],
)
def test_file_cut_short(tmp_path, file, kept, reason):
    write_raw(tmp_path)
    text = (tmp_path / file).read_text()
    (tmp_path / file).write_text(text[: int(kept * len(text))])
    with pytest.raises(ValueError, match=reason):
        QM9(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("'O'", "'Q'", r"qm9_part3\.csv: molecule 3 has atoms that cannot be read \('Q'\)"),
        ("0.0076", "", r"qm9_part3\.csv: molecule 3 has atoms"),
        (",3,", ",1,", "expected 2 in ascending order"),
        (",6.002", "", r"qm9_part3\.csv: line 2 is not whole"),
        ("2\n", "", r"qm9_part3\.csv: the last line has no end"),
    ],
)
def test_package_that_is_not_what_it_should_be(pack, old, new, reason):
    changed(pack / "qm9_part3.csv", old, new)
    with pytest.raises(ValueError, match=reason):
        QM9()


def test_neighbors_are_kept(tmp_path):
    write_raw(tmp_path)
    options = dict(pre_transform=RadiusGraph(3.0), cache=tmp_path / "cache")
    first = QM9(tmp_path, **options)
    (kept,) = (tmp_path / "cache").iterdir()
    written = kept.stat().st_mtime_ns
    again = QM9(tmp_path, **options)
    assert kept.stat().st_mtime_ns == written
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.edge_index, other.edge_index)
        assert torch.equal(one.y, other.y)
    changed(tmp_path / "gdb9.sdf.csv", "-76.404702", "-76.404703")
    assert QM9(tmp_path, **options)[1].y[0, 7] != first[1].y[0, 7]


def test_targets_are_those_of_pyg():
    """PyG's order and conversions; its Hartree is of a later CODATA, 8e-9 larger."""
    factors = [target.published_unit for target in TARGETS.values()]
    assert factors == pytest.approx(pyg_qm9.conversion[:12].tolist(), rel=1e-7)
    assert QM9.unit("homo") == "eV"
    assert QM9.unit("Cv") == "cal/mol/K"


def test_atom_references_are_those_of_pyg():
    for column, name in ((6, "zpve"), (7, "U0"), (8, "U"), (9, "H"), (10, "G")):
        assert list(QM9.atom_reference(name).values()) == pytest.approx(pyg_qm9.atomrefs[column], rel=1e-8)
    assert set(QM9.atom_reference("U0")) == {1, 6, 7, 8, 9}


def test_free_atoms_have_the_heat_capacity_of_an_ideal_gas():
    gas_constant = units.kB * units.mol / units.kcal * 1000  # cal/mol/K
    assert list(QM9.atom_reference("Cv").values()) == pytest.approx(5 * [1.5 * gas_constant], abs=5e-4)


def test_atomization_energy_of_water():
    """-219.0 kcal/mol at 0 K with zero-point energy, from experiment; B3LYP is within a few kcal/mol."""
    free = QM9.atom_reference("U0")
    energy = WATER[2][7] * units.Hartree - free[8] - 2 * free[1]
    assert energy / (units.kcal / units.mol) == pytest.approx(-219.0, abs=7.0)


@pytest.mark.parametrize("target", ["u0", "energy", 7])
def test_unknown_target(target):
    with pytest.raises(ValueError, match=rf"target: QM9 has mu, alpha, .*, Cv, got {target!r}"):
        QM9.target_index(target)


def test_target_without_an_atom_reference():
    with pytest.raises(ValueError, match=r"target: free atoms have a published zpve, U0, .*, got 'mu'"):
        QM9.atom_reference("mu")


def test_usual_split(tmp_path, monkeypatch):
    write_raw(tmp_path)
    dataset = QM9(tmp_path)
    with pytest.raises(ValueError, match=r"usual_split: it is of all of QM9, but here are 2 molecules"):
        dataset.usual_split()
    monkeypatch.setattr(QM9, "__len__", lambda self: 130_831)
    train, validation, test = dataset.usual_split(seed=3)
    assert (len(train), len(validation), len(test)) == (110_000, 10_000, 10_831)
    assert torch.equal(torch.cat([train, validation, test]).sort().values, torch.arange(130_831))
    assert torch.equal(dataset.usual_split(seed=3)[2], test)
    assert not torch.equal(dataset.usual_split(seed=4)[2], test)


def test_repr(tmp_path):
    write_raw(tmp_path)
    assert repr(QM9(tmp_path)) == f"QM9({str(tmp_path)!r}, molecules=2)"
    assert not isinstance(QM9(tmp_path), FrameDataset)  # no energies and forces


# === the embedded sample ===


@pytest.fixture(scope="module")
def sample():
    return QM9Sample()


def test_sample_holds_distinct_molecules(sample):
    numbers = sample._data.number
    assert len(sample) == len(numbers.unique()) == 5000
    assert numbers.min() >= 1
    assert numbers.max() <= 133_885
    assert sample[17].pos.shape == (sample[17].num_nodes, 3)


def test_sample_is_consistent_with_itself(sample):
    """Relations between properties that hold for every molecule."""
    y = {name: sample._data.y[:, column] for column, name in enumerate(TARGETS)}
    rounding = 1.5e-4 * units.Hartree
    assert ((y["lumo"] - y["homo"] - y["gap"]).abs() < rounding).all()
    thermal = units.kB * 298.15
    assert ((y["H"] - y["U"] - thermal).abs() < 1e-4).all()
    assert (y["U"] > y["U0"]).all()
    assert (y["G"] < y["U0"]).all()
    assert (y["mu"] >= 0).all()


def test_sample_has_no_atoms_on_top_of_each_other(sample):
    for molecule in sample[:200]:
        assert torch.pdist(molecule.pos).min() > 0.9


@pytest.mark.slow
def test_sample_energies_are_sums_over_atoms_within_an_electronvolt_or_two(sample):
    """Energies, atoms and their order belong together: a fit of five numbers explains 1,086 eV to about 1."""
    counts = torch.stack([torch.bincount(molecule.z, minlength=10) for molecule in sample]).double()
    energy = sample._data.y[:, sample.target_index("U0")]
    residual = energy - counts @ torch.linalg.lstsq(counts, energy, driver="gelsd").solution
    assert energy.std() > 900
    assert residual.std() < 1.3


def test_the_pages_name_the_unit_of_every_target():
    root = Path(__file__).parents[2]
    page, readme = ((root / name).read_text() for name in ("docs/data_sets.md", "README.md"))
    for target in TARGETS.values():
        assert f"| `{target.name}` | {target.unit} |" in page
        assert target.unit == "eV" or f"{target.name} in {target.unit}" in readme.replace("mu is in", "mu in")
