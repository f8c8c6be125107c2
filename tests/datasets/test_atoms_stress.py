"""Stresses and virials against energies of strained cells, and what cannot be one."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from torch_geometric.data import Data

from datasets import AtomsFile
from pyg_cgconv.potential import Potential, RadiusGraph

from .labelled_atoms import crystals, molecules

STRESS = [[0.1, 0.6, 0.5], [0.6, 0.2, 0.4], [0.5, 0.4, 0.3]]
CUTOFF = 3.0
VOLUME = 9.0 * 8.0 * 7.0


def frame(**info) -> Atoms:
    """Two copper atoms in a cell, with an energy and forces of nobody in particular."""
    atoms = Atoms("Cu2", [(0, 0, 0), (2.5, 0, 0)], cell=[9, 8, 7], pbc=True)
    results = {"stress": np.array(info.pop("stress"))} if "stress" in info else {}
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((2, 3)), **results)
    atoms.info.update(info)
    return atoms


def written(folder, *images, name="frames.xyz"):
    write(folder / name, images)
    return folder / name


def voigt(stress) -> np.ndarray:
    return np.array(stress)[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


def virial_of(stress, factor: float = 1.0) -> np.ndarray:
    return -VOLUME * factor * np.array(stress)


# === values ===


def strained(energy, cell, step=1e-4):
    """dE/d(strain) / V (3, 3) by central differences; ``energy`` takes a deformation (3, 3) of rows."""
    slope = np.zeros((3, 3))
    for a, b in np.ndindex(3, 3):
        strain = np.zeros((3, 3))
        strain[a, b] += step / 2
        strain[b, a] += step / 2
        slope[a, b] = (energy(np.eye(3) + strain) - energy(np.eye(3) - strain)) / (2 * step)
    return slope / abs(np.linalg.det(cell))


@pytest.mark.parametrize("name", ["frames.traj", "frames.xyz"])
def test_stress_is_the_derivative_by_strain(tmp_path, name):
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell(atoms.cell.array @ [[1.02, 0.01, 0.03], [0, 0.98, -0.02], [0, 0, 1.05]], scale_atoms=True)
    atoms.rattle(0.1, seed=3)

    def energy(deformation):
        moved = atoms.copy()
        moved.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
        moved.calc = EMT()
        return moved.get_potential_energy()

    atoms.calc = EMT()
    atoms.get_stress()
    expected = strained(energy, atoms.cell.array)
    assert len(set(expected.round(4).flatten())) == 6  # no two components could be swapped unseen
    stress = AtomsFile(written(tmp_path, atoms, name=name))[0].stress[0]
    assert np.allclose(stress, expected, rtol=1e-4, atol=1e-7)


def test_potential_has_the_same_sign_and_order():
    torch.manual_seed(0)
    potential = Potential(
        [29], CUTOFF, channels=2, lmax=1, layers=1, num_radial=3, radial_hidden=(4,), avg_num_neighbors=12.0,
        shift={29: 0.0}, scale={29: 1.0}, dtype="float64",
    ).eval()  # fmt: skip
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.2, seed=0)

    def predicted(deformation, **options):
        pos, cell = (torch.tensor(rows @ deformation) for rows in (atoms.positions, atoms.cell.array))
        data = Data(z=torch.tensor(atoms.numbers), pos=pos, cell=cell[None])
        return potential(RadiusGraph(CUTOFF)(data), **options)

    stress = predicted(np.eye(3), compute_stress=True)["stress"][0]
    expected = strained(lambda deformation: predicted(deformation)["energy"].item(), atoms.cell.array)
    assert np.abs(expected).min() > 1e-8
    assert np.allclose(stress, expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    "given",
    [[1.0, 2, 3, 4, 5, 6], [1.0, 6, 5, 6, 2, 4, 5, 4, 3], [[1.0, 6, 5], [6, 2, 4], [5, 4, 3]]],
    ids=["Voigt", "flat", "matrix"],
)
def test_layouts_of_a_custom_stress(tmp_path, given):
    atoms = crystals()[0]
    atoms.info["dft_stress"] = np.array(given)
    item = AtomsFile(written(tmp_path, atoms, name="frames.traj"), stress_key="dft_stress")[0]
    assert item.stress.tolist() == [[[1, 6, 5], [6, 2, 4], [5, 4, 3]]]


def test_stress_that_is_not_symmetric(tmp_path):
    atoms = crystals()[0]
    atoms.info["dft_stress"] = np.arange(9.0)
    with pytest.raises(ValueError, match=r"frames\.traj: frame 0 has a stress that is not symmetric"):
        AtomsFile(written(tmp_path, atoms, name="frames.traj"), stress_key="dft_stress")


def test_virial_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"stress_key: 'REF_virial' sounds like a virial.*minus the volume"):
        AtomsFile(written(tmp_path, *molecules()), stress_key="REF_virial")


def test_stress_that_only_some_frames_have(tmp_path):
    frames = AtomsFile(written(tmp_path, *crystals(), *molecules()))
    assert [frame.stress.isnan().all().item() for frame in frames] == [False] * 2 + [True] * 4


def cluster() -> Atoms:
    """Atoms that interact with none of their images, so that positions and forces have all of the virial."""
    atoms = Atoms("Cu4", [(0, 0, 0), (2.3, 0.1, 0.2), (0.3, 2.2, 0.4), (0.5, 0.3, 2.7)], cell=[30, 31, 32], pbc=True)
    atoms.calc = EMT()
    return atoms


@pytest.mark.parametrize(("name", "options"), [("virial", {}), ("virials", {}), ("W", {"virial_key": "W"})])
def test_the_stress_of_a_virial_is_the_derivative_by_strain(tmp_path, name, options):
    r"""The virial is :math:`\sum_i r_i F_i`, as mechanics has it; energies are EMT's."""
    atoms = cluster()

    def energy(deformation):
        moved = atoms.copy()
        moved.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
        moved.calc = EMT()
        return moved.get_potential_energy()

    expected = strained(energy, atoms.cell.array)
    virial = atoms.positions.T @ atoms.get_forces()
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=atoms.get_forces())
    atoms.info[name] = virial
    stress = AtomsFile(written(tmp_path, atoms), **options)[0].stress[0]
    assert np.abs(expected).min() > 1e-8
    np.testing.assert_allclose(stress, expected, rtol=1e-4)


@pytest.mark.parametrize("layout", [voigt, np.ravel, np.array], ids=["Voigt", "flat", "matrix"])
@pytest.mark.parametrize("name", ["frames.xyz", "frames.traj"])
def test_layouts_of_a_virial(tmp_path, layout, name):
    path = written(tmp_path, frame(REF_virial=layout(virial_of(STRESS))), name=name)
    stress = AtomsFile(path, virial_key="REF_virial")[0].stress[0]
    np.testing.assert_allclose(stress, STRESS, rtol=1e-12)


def test_a_stress_of_nine_numbers_is_what_the_file_has(tmp_path):
    path = tmp_path / "frames.xyz"
    path.write_text(
        '1\nProperties=species:S:1:pos:R:3 Lattice="9 0 0 0 9 0 0 0 9" energy=1 stress="1 6 5 6 2 4 5 4 3"\nCu 0 0 0\n'
    )
    assert AtomsFile(path)[0].stress.tolist() == [[[1, 6, 5], [6, 2, 4], [5, 4, 3]]]


# === stresses of several names ===


@pytest.mark.parametrize(
    ("info", "other"),
    [
        ({"virial": virial_of(STRESS, -1)}, "virial"),
        ({"virials": virial_of(STRESS, 1.1)}, "virials"),
        ({"REF_stress": voigt(STRESS) + 0.01}, "REF_stress"),
        ({"REF_virial": np.ravel(virial_of(STRESS, -1))}, "REF_virial"),
    ],
)
def test_a_stress_and_another_that_disagree_are_refused(tmp_path, info, other):
    path = written(tmp_path, frame(stress=voigt(STRESS), **info))
    message = rf"frame 0 has two labels for the stress, 'stress' and '{other}', .*--stress_key or --virial_key"
    with pytest.raises(ValueError, match=message):
        AtomsFile(path)
    assert np.allclose(AtomsFile(path, stress_key="stress")[0].stress, STRESS)


def test_a_stress_and_a_virial_that_agree_are_read(tmp_path):
    path = written(tmp_path, frame(stress=voigt(STRESS), virial=virial_of(STRESS, 1.0002)))
    assert np.allclose(AtomsFile(path)[0].stress, STRESS, rtol=1e-9)


def test_a_stress_and_a_virial_that_are_both_named_must_agree(tmp_path):
    path = written(tmp_path, frame(S=voigt(STRESS), W=np.ravel(virial_of(STRESS, -1))))
    assert np.allclose(AtomsFile(path, virial_key="W")[0].stress, -np.array(STRESS))
    with pytest.raises(ValueError, match=r"two labels for the stress, 'S' and 'W', which differ by 1\.2 eV"):
        AtomsFile(path, stress_key="S", virial_key="W")


@pytest.mark.parametrize("name", ["REF_stress", "dft_virial"])
def test_a_stress_that_is_not_read_is_named_once(tmp_path, name):
    path = written(tmp_path, *(frame(**{name: voigt(STRESS)}) for _ in range(3)))
    with pytest.warns(UserWarning, match=rf"frames\.xyz: no stress is read, but there is {name}: .*_key") as warned:
        assert "stress" not in AtomsFile(path)[0]
    assert len(warned) == 1


# === what cannot be ===


@pytest.mark.parametrize("name", ["frames.xyz", "frames.xyz.gz", "frames.extxyz"])
def test_a_stress_of_nine_numbers_that_is_not_symmetric_is_refused(tmp_path, name):
    """ASE keeps six of them."""
    lopsided = np.array(STRESS)
    lopsided[0, 1] = 0.0
    path = written(tmp_path, frame(stress=voigt(STRESS)), frame(stress=lopsided), name=name)
    with pytest.raises(ValueError, match=r"frame 1 has a stress that is not symmetric, 'stress': .*0\.6.*; expected"):
        AtomsFile(path)
    assert len(AtomsFile(path, labels=["energy", "forces"])) == 2


@pytest.mark.parametrize(("name", "options"), [("virial", {}), ("W", {"virial_key": "W"})])
def test_a_virial_that_is_not_symmetric_is_refused(tmp_path, name, options):
    path = written(tmp_path, frame(**{name: np.arange(9.0).reshape(3, 3)}))
    with pytest.raises(ValueError, match=rf"frame 0 has a virial that is not symmetric, '{name}': \[\[0\.0, "):
        AtomsFile(path, **options)


def test_rounding_is_no_asymmetry(tmp_path):
    rounded, relaxed = np.array(STRESS), np.zeros((3, 3))
    rounded[0, 1] += 5e-4
    relaxed[0, 1] = 5e-7
    first, second = AtomsFile(written(tmp_path, frame(stress=rounded), frame(stress=relaxed)))
    np.testing.assert_allclose(first.stress[0], (rounded + rounded.T) / 2, rtol=1e-12)
    np.testing.assert_allclose(second.stress[0], (relaxed + relaxed.T) / 2, rtol=1e-12)


def test_a_virial_without_a_volume_is_refused(tmp_path):
    molecule = frame(virial=virial_of(STRESS))
    molecule.pbc, molecule.cell[:] = False, 0.0
    with pytest.raises(ValueError, match=r"has a virial 'virial', but its cell .* has no volume .*leave stress out"):
        AtomsFile(written(tmp_path, molecule))
    assert len(AtomsFile(written(tmp_path, molecule), labels=["energy", "forces"])) == 1


def test_the_virial_of_a_single_atom_without_a_cell_is_no_stress(tmp_path):
    atom = frame(virial=np.zeros((3, 3)))[:1]
    atom.pbc, atom.cell[:] = False, 0.0
    atom.calc = SinglePointCalculator(atom, energy=-1.0)
    assert "stress" not in AtomsFile(written(tmp_path, atom))[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stress_key": "REF_virial"}, r"stress_key: 'REF_virial' sounds like a virial; .*give it as virial_key"),
        ({"virial_key": "REF_stress"}, r"virial_key: 'REF_stress' sounds like a stress; .*give it as stress_key"),
        ({"virial_key": "W", "labels": ["energy"]}, r"virial_key: got 'W', but labels=.* leaves the stress out"),
        ({"virial_key": "W"}, r"frame 0 has no stress 'W'; .*perhaps 'REF_virial', as `stress_key` or `virial_key`"),
    ],
)
def test_mistakes_are_named(tmp_path, options, message):
    path = written(tmp_path, frame(REF_virial=voigt(STRESS)))
    with pytest.raises(ValueError, match=message):
        AtomsFile(path, **options)
