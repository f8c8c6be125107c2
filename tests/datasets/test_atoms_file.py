"""Files written by ASE, and files written by hand, against what ASE says of the same atoms."""

import re
import sys
import warnings

import numpy as np
import pytest
import torch
from torch_geometric.loader import DataLoader

from datasets import AtomsFile
from pyg_cgconv.potential import RadiusGraph

ase = pytest.importorskip("ase")
from ase import Atoms  # noqa: E402
from ase.build import bulk, molecule  # noqa: E402
from ase.constraints import FixAtoms  # noqa: E402
from ase.io import read, write  # noqa: E402

from .labelled_atoms import crystals, labelled, molecules, written  # noqa: E402

CUTOFF = 3.0


@pytest.fixture
def xyz(tmp_path):
    return written(tmp_path / "molecules.xyz", molecules())


# === values ===


@pytest.mark.parametrize("images", [molecules, crystals])
@pytest.mark.parametrize("name", ["frames.traj", "frames.extxyz", "fr@1:mes.xyz", "frames.xyz.gz"])
def test_values_are_what_ase_reads(tmp_path, images, name):
    path = tmp_path / name
    write(tmp_path / name.replace("@1:", ""), images())
    (tmp_path / name.replace("@1:", "")).rename(path)
    expected = list(read(path, ":", do_not_split_by_at_sign=True))
    dataset = AtomsFile(path)
    assert len(dataset) == len(expected) == len(images())
    for item, atoms in zip(dataset, expected, strict=True):
        assert item.z.tolist() == atoms.numbers.tolist()
        assert np.array_equal(item.pos, atoms.positions)
        assert np.array_equal(item.forces, atoms.get_forces())
        assert item.energy.tolist() == [atoms.get_potential_energy()]


@pytest.mark.parametrize("name", ["frames.traj", "frames.xyz"])
def test_energies_keep_their_last_digit(tmp_path, name):
    energies = torch.cat([item.energy for item in AtomsFile(written(tmp_path / name, molecules()))])
    expected = [atoms.get_potential_energy() for atoms in molecules()]
    assert energies.dtype == torch.float64
    assert energies.tolist() == expected
    assert energies.float().double().tolist() != expected


def test_shapes_and_types_of_a_crystal(tmp_path):
    item = AtomsFile(written(tmp_path / "frames.traj", crystals()))[1]
    assert {key: (tuple(value.shape), value.dtype) for key, value in item.to_dict().items()} == {
        "z": ((4,), torch.int64),
        "pos": ((4, 3), torch.float64),
        "energy": ((1,), torch.float64),
        "forces": ((4, 3), torch.float64),
        "stress": ((1, 3, 3), torch.float64),
        "cell": ((1, 3, 3), torch.float64),
        "pbc": ((1, 3), torch.bool),
    }


def test_lattice_vectors_are_rows(tmp_path):
    item = AtomsFile(written(tmp_path / "frames.traj", crystals()))[0]
    assert np.array_equal(item.cell[0], crystals()[0].cell.array)
    assert not torch.equal(item.cell[0], item.cell[0].T)
    assert item.pbc.tolist() == [[True, True, True]]


def test_molecules_have_no_cell(xyz):
    assert all(sorted(item.keys()) == ["energy", "forces", "pos", "z"] for item in AtomsFile(xyz))


def test_molecules_among_crystals_have_a_cell_that_is_not_periodic(tmp_path):
    dataset = AtomsFile(written(tmp_path / "mixed.xyz", [*crystals(), *molecules()]), labels=("energy", "forces"))
    assert dataset[2].pbc.tolist() == [[False, False, False]]
    assert dataset[2].cell.abs().max() == 0
    assert dataset[1].pbc.all()


def test_slab(tmp_path):
    slab = bulk("Cu", cubic=True)
    slab.pbc = (True, True, False)
    assert AtomsFile(written(tmp_path / "slab.xyz", labelled(slab)))[0].pbc.tolist() == [[True, True, False]]


def test_files_and_frames_keep_their_order(tmp_path):
    second, first = written(tmp_path / "a.xyz", molecules()[:3]), written(tmp_path / "b.traj", molecules()[3:])
    energies = [item.energy.item() for item in AtomsFile([str(first), second])]
    assert energies == [molecules()[number].get_potential_energy() for number in (3, 0, 1, 2)]


def test_forces_on_fixed_atoms_are_kept(tmp_path):
    atoms = molecules()[0]
    forces = atoms.get_forces()
    atoms.set_constraint(FixAtoms([0]))
    assert np.array_equal(AtomsFile(written(tmp_path / "fixed.traj", atoms))[0].forces, forces)


def test_random_split(xyz):
    train, validation, test = AtomsFile(xyz).random_split(2, 1, 1)
    assert sorted(torch.cat([train, validation, test]).tolist()) == [0, 1, 2, 3]


# === keys and missing labels ===


def with_custom_keys(path):
    atoms = molecule("H2O")
    atoms.info["REF_energy"], atoms.arrays["REF_forces"] = -2081.123456789012, np.arange(9.0).reshape(3, 3)
    return written(path, [atoms, atoms])


def test_custom_keys(tmp_path):
    item = AtomsFile(with_custom_keys(tmp_path / "frames.xyz"), energy_key="REF_energy", forces_key="REF_forces")[1]
    assert item.energy.item() == -2081.123456789012
    assert item.forces.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_key_among_the_calculator_s_results(tmp_path):
    path = written(tmp_path / "frames.traj", labelled(molecule("H2O"), free_energy=-5.5))
    assert AtomsFile(path, energy_key="free_energy")[0].energy.item() == -5.5
    assert AtomsFile(path)[0].energy.item() != -5.5


def test_energy_that_is_written_as_an_integer(tmp_path):
    (tmp_path / "h.xyz").write_text("1\nProperties=species:S:1:pos:R:3 E=-13\nH 0 0 0\n")
    energy = AtomsFile(tmp_path / "h.xyz", labels=["energy"], energy_key="E")[0].energy
    assert (energy.tolist(), energy.dtype) == ([-13], torch.float64)


def test_missing_energy_names_what_there_is(tmp_path):
    path = with_custom_keys(tmp_path / "frames.xyz")
    with pytest.raises(ValueError, match=r"frames\.xyz: frame 0 has no energy; .*'REF_energy'.*`energy_key`"):
        AtomsFile(path)


def test_misspelt_key(tmp_path):
    path = with_custom_keys(tmp_path / "frames.xyz")
    with pytest.raises(ValueError, match=r"frame 0 has no forces 'ref_forces'; .*'REF_forces'.*`forces_key`"):
        AtomsFile(path, energy_key="REF_energy", forces_key="ref_forces")


@pytest.mark.parametrize("missing", ["energy", "forces", "stress"])
@pytest.mark.parametrize("labels", [None, ("energy", "forces", "stress")])
def test_a_label_that_a_frame_lacks_is_nan(tmp_path, missing, labels):
    images = [crystal for _ in range(2) for crystal in crystals()]
    del images[2].calc.results[missing]
    frames = AtomsFile(written(tmp_path / "frames.traj", images), labels=labels)
    found = {name: [frame[name].isnan() for frame in frames] for name in ("energy", "forces", "stress")}
    for name, absent in found.items():
        assert [one.all().item() for one in absent] == [name == missing and number == 2 for number in range(4)]
        assert [one.any().item() for one in absent] == [name == missing and number == 2 for number in range(4)]
        assert frames[2][name].shape == frames[0][name].shape


def test_a_label_that_a_frame_lacks_under_its_key_is_nan(tmp_path):
    named, unnamed = molecule("H2O"), labelled(molecule("H2O"))
    named.info["REF_energy"] = -5.0
    frames = AtomsFile(written(tmp_path / "frames.traj", [named, unnamed]), energy_key="REF_energy")
    assert frames[0].energy.item() == -5.0
    assert frames[1].energy.isnan().all()
    assert frames[0].forces.isnan().all()


@pytest.mark.parametrize("missing", ["energy", "forces"])
def test_a_label_that_no_frame_has(tmp_path, missing):
    images = molecules()
    for atoms in images:
        del atoms.calc.results[missing]
    with pytest.raises(ValueError, match=rf"bad\.traj: frame 0 has no {missing};"):
        AtomsFile(written(tmp_path / "bad.traj", images))


def test_a_label_of_another_name_among_others_is_no_missing_one(tmp_path):
    """Files of two sources in one: the energy is there, but ASE does not know its name."""
    images = molecules()
    images[2].info["dft_energy"] = images[2].calc.results.pop("energy")
    with pytest.raises(ValueError, match=r"frame 2 has no energy; .*perhaps 'dft_energy', as `energy_key`"):
        AtomsFile(written(tmp_path / "frames.traj", images))


def test_missing_stress_that_was_asked_for(xyz):
    with pytest.raises(ValueError, match=r"molecules\.xyz: frame 0 has no stress;"):
        AtomsFile(xyz, labels=("energy", "stress"))


@pytest.mark.parametrize("labels", [(), ("energy",), ("stress", "forces")])
def test_only_the_labels_that_were_asked_for(tmp_path, labels):
    item = AtomsFile(written(tmp_path / "frames.traj", crystals()), labels=labels)[0]
    assert set(item.keys()) == {"z", "pos", "cell", "pbc", *labels}


@pytest.mark.parametrize("labels", ["energy", ("energy", "magmoms")])
def test_unknown_labels(xyz, labels):
    with pytest.raises(ValueError, match="labels: expected a list of some of"):
        AtomsFile(xyz, labels=labels)


def test_key_of_a_label_that_is_left_out(xyz):
    with pytest.raises(ValueError, match=r"forces_key: got 'f', but labels=.* leaves the forces out"):
        AtomsFile(xyz, labels=("energy",), forces_key="f")


# === files and values that cannot be ===


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("e", "high", "energy of .*expected numbers"),
        ("e", np.ones(2), "energy of float64 and shape \\(2,\\)"),
        ("e", np.nan, "energy not finite"),
        ("f", np.ones((2, 3)), "forces of float64 and shape \\(2, 3\\), expected numbers of shape \\(3, 3\\)"),
        ("f", np.full((3, 3), np.inf), "forces not finite"),
        ("s", np.ones(3), "stress of float64 and shape \\(3,\\)"),
    ],
)
def test_label_that_cannot_be(tmp_path, name, value, reason):
    atoms = labelled(molecule("H2O"))
    atoms.info.update({"e": 1.0, "f": np.ones((3, 3)), "s": np.ones(6), name: value})
    path = written(tmp_path / "frames.traj", [atoms])
    with pytest.raises(ValueError, match=rf"frames\.traj: frame 0: {reason}"):
        AtomsFile(path, energy_key="e", forces_key="f", stress_key="s")


@pytest.mark.parametrize(
    ("atoms", "reason"),
    [
        (Atoms("XH", [(0, 0, 0), (0, 0, 1)]), "atomic numbers"),
        (Atoms("H", [(0, 0, np.nan)]), "not finite"),
        (Atoms("H", [(0, 0, 0)], pbc=True), "is periodic"),
        (Atoms("H", [(0, 0, 0)], cell=[[1, 0, 0], [2, 0, 0], [0, 0, 1]], pbc=(1, 1, 0)), "span nothing"),
    ],
)
def test_structure_that_cannot_be(tmp_path, atoms, reason):
    path = written(tmp_path / "frames.traj", [molecule("H2O"), atoms])
    with pytest.raises(ValueError, match=rf"frames\.traj: frame 1 .*{reason}"):
        AtomsFile(path, labels=())


@pytest.mark.slow
def test_every_cut_of_an_xyz_is_noticed(tmp_path):
    """Unless it falls between two frames, where what is left is a whole file."""
    path = written(tmp_path / "frames.xyz", molecules()[:2])
    whole, first = path.read_bytes(), len(written(tmp_path / "first.xyz", molecules()[0]).read_bytes())
    unnoticed = []
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                AtomsFile(path)
            noticed = [str(warning.message) for warning in warned]
        except ValueError as error:
            noticed = [str(error)]
        if not any("frames.xyz" in message for message in noticed):
            unnoticed.append(length)
    assert unnoticed == [first]


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_truncated_trajectory(tmp_path, kept):
    path = written(tmp_path / "frames.traj", molecules())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match=r"frames\.traj: ASE cannot read frame \d .*cut short"):
        AtomsFile(path)


def test_blank_line_between_frames(xyz):
    whole = xyz.read_text()
    xyz.write_text(whole + "\n" + whole)
    with pytest.raises(ValueError, match=r"molecules\.xyz: 4 frames end at line 24, but there are 49 lines; .*blank"):
        AtomsFile(xyz)


def test_blank_lines_at_the_end(xyz):
    xyz.write_text(xyz.read_text() + "\n\n")
    assert len(AtomsFile(xyz)) == 4


@pytest.mark.parametrize("name", ["page.xyz", "page.traj", "page.dat", "page"])
@pytest.mark.parametrize("content", [b"", b"<html>404</html>\n", b"\x89PNG\r\n\x1a\n\xff\xfe\x00"])
def test_foreign_file(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{re.escape(name)}: ASE cannot read frame 0 .*`format`"):
        AtomsFile(tmp_path / name)


def test_format_of_a_file_whose_name_does_not_tell(tmp_path, xyz):
    xyz.rename(tmp_path / "molecules.dat")
    assert len(AtomsFile(tmp_path / "molecules.dat", format="extxyz")) == 4


def test_missing_file(tmp_path, xyz):
    with pytest.raises(FileNotFoundError, match=r"absent\.xyz: no such file"):
        AtomsFile([xyz, tmp_path / "absent.xyz"])


@pytest.mark.parametrize("files", [[], {"a.xyz"}, 3])
def test_files_without_an_order(files):
    with pytest.raises(ValueError, match="files: expected a path or a list of paths"):
        AtomsFile(files)


def test_missing_ase(xyz, monkeypatch):
    monkeypatch.setitem(sys.modules, "ase.io", None)
    with pytest.raises(ImportError, match="pip install ase"):
        AtomsFile(xyz)


# === neighbours, batches ===


def test_pre_transform_sees_the_cell(tmp_path):
    path = written(tmp_path / "frames.traj", crystals())
    item, plain = AtomsFile(path, pre_transform=RadiusGraph(CUTOFF))[1], AtomsFile(path)[1]
    assert item.edge_index.shape == (2, 48)  # twelve neighbours in fcc, all but three of four atoms' images
    assert torch.equal(item.edge_index, RadiusGraph(CUTOFF)(plain).edge_index)


def test_batch_of_crystals(tmp_path):
    dataset = AtomsFile(written(tmp_path / "frames.traj", crystals()), pre_transform=RadiusGraph(CUTOFF))
    batch = next(iter(DataLoader(dataset, batch_size=2)))
    assert batch.cell.shape == batch.stress.shape == (2, 3, 3)
    assert batch.batch.tolist() == [0, 0, 1, 1, 1, 1]
    source, target = batch.edge_index
    shift = torch.einsum("es,esx->ex", batch.edge_shift, batch.cell[batch.batch[target]])
    distance = (batch.pos[source] + shift - batch.pos[target]).norm(dim=1)
    assert (batch.batch[source] == batch.batch[target]).all()
    assert 2 < distance.min() <= distance.max() < CUTOFF


def test_batch_of_molecules_and_crystals(tmp_path):
    path = written(tmp_path / "mixed.xyz", [*molecules(), *crystals()])
    dataset = AtomsFile(path, labels=("energy", "forces"), pre_transform=RadiusGraph(CUTOFF))
    batch = next(iter(DataLoader(dataset, batch_size=6)))
    assert batch.pbc.tolist() == 4 * [3 * [False]] + 2 * [3 * [True]]
    assert batch.edge_index.shape[1] == len(batch.edge_shift) == sum(item.edge_index.shape[1] for item in dataset)
    assert batch.forces.shape == batch.pos.shape


def test_repr(xyz):
    assert repr(AtomsFile(xyz)) == f"AtomsFile(['{xyz}'], frames=4)"
