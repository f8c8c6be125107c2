import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from train.statistics import collect_statistics, elements_without_energy, fit_energy_reference


def frame(numbers: list[int], energy: float, forces: np.ndarray, edges: int = 0) -> Data:
    return Data(
        z=torch.tensor(numbers),
        pos=torch.zeros(len(numbers), 3, dtype=torch.float64),
        energy=torch.tensor([energy], dtype=torch.float64),
        forces=torch.from_numpy(forces),
        edge_index=torch.zeros(2, edges, dtype=torch.int64),
    )


def test_reference_recovers_atom_energies_from_different_molecules():
    atoms = np.array([-13.587, -1029.863, -2041.840])
    composition = np.array([[4, 1, 0], [2, 0, 1], [2, 1, 1], [6, 2, 1], [4, 2, 0]])
    np.testing.assert_allclose(fit_energy_reference(composition, composition @ atoms), atoms, rtol=1e-12)


def test_reference_equals_normal_equations_with_noise():
    random = np.random.default_rng(1)
    composition = random.integers(0, 8, size=(50, 4))
    energy = composition @ random.normal(-500, 200, size=4) + random.normal(scale=0.3, size=50)
    expected = np.linalg.solve(composition.T @ composition, composition.T @ energy)
    np.testing.assert_allclose(fit_energy_reference(composition, energy), expected, rtol=1e-9)


def test_reference_of_one_molecule_sums_to_its_mean_energy():
    composition = np.tile([6, 2, 1], (5, 1))
    energy = np.array([-4200.1, -4200.3, -4200.2, -4200.7, -4199.9])
    assert composition[0] @ fit_energy_reference(composition, energy) == pytest.approx(energy.mean(), rel=1e-14)


def test_known_energies_stay_and_others_are_fitted():
    """The others by the normal equations of what the known ones leave."""
    random = np.random.default_rng(2)
    composition = random.integers(0, 8, size=(50, 3))
    energy = composition @ random.normal(-500, 200, size=3) + random.normal(scale=3.0, size=50)
    known = np.array([np.nan, -450.0, np.nan])
    left, others = energy + 450.0 * composition[:, 1], composition[:, [0, 2]]
    expected = np.linalg.solve(others.T @ others, others.T @ left)
    found = fit_energy_reference(composition, energy, known)
    np.testing.assert_allclose(found[[0, 2]], expected, rtol=1e-9)
    assert found[1] == -450.0
    assert np.isnan(known[0])


def test_all_energies_may_be_known():
    assert fit_energy_reference(np.array([[2, 1]]), np.array([-9.0]), np.array([-1.0, -2.0])).tolist() == [-1.0, -2.0]


def test_statistics_of_mixed_frames():
    forces = [np.full((3, 3), 2.0), np.full((2, 3), -1.0)]
    frames = [frame([8, 1, 1], -20.0, forces[0], edges=6), frame([1, 1], -2.0, forces[1], edges=2)]
    found = collect_statistics(frames)
    assert found.species == (1, 8)
    assert found.shift == pytest.approx((-1.0, -18.0))
    assert found.scale == pytest.approx(np.sqrt((9 * 4.0 + 6 * 1.0) / 15))
    assert found.num_neighbors == pytest.approx(8 / 5)


def test_given_energies_of_atoms_are_taken_as_they_are():
    frames = [frame([8, 1, 1], -20.0, np.ones((3, 3)))]
    found = collect_statistics(frames, {"O": -17.5, "Au": -1e5, "H": -1.25})
    assert (found.species, found.shift) == ((1, 8), (-1.25, -17.5))


def test_energies_of_isolated_atoms_are_taken_and_others_fitted():
    frames = [frame([8, 1, 1], -20.0, np.ones((3, 3))), frame([1, 1], -2.5, np.ones((2, 3)))]
    found = collect_statistics(frames, isolated_energies={"H": -1.0, "Au": -1e5})
    assert (found.species, found.shift) == ((1, 8), (-1.0, pytest.approx(-18.0)))


def test_given_energies_go_before_those_of_isolated_atoms():
    frames = [frame([8, 1, 1], -20.0, np.ones((3, 3)))]
    assert collect_statistics(frames, {"O": -17.5}, {"H": -1.0, "O": -99.0}).shift == (-1.0, -17.5)


@pytest.mark.parametrize(
    ("energies", "message"), [({"H": -1.0}, r"none for \['O'\]"), ({"H": -1.0, "Oxygen": -2.0}, r"\['Oxygen'\] are no")]
)
def test_energies_of_atoms_must_cover_the_elements(energies, message):
    with pytest.raises(ValueError, match=message):
        collect_statistics([frame([8, 1, 1], -20.0, np.ones((3, 3)))], energies)


def test_scale_without_forces_is_that_of_the_energies():
    frames = [frame([1, 1], energy, np.full((2, 3), np.nan)) for energy in (-2.0, -2.4, -1.6)]
    assert collect_statistics(frames).scale == pytest.approx(np.sqrt((0.2**2 + 0.2**2) / 3))


def test_scale_is_that_of_the_frames_with_forces():
    frames = [frame([1, 1], -2.0, np.full((2, 3), np.nan)), frame([1, 1], -2.1, np.full((2, 3), -3.0))]
    assert collect_statistics(frames).scale == pytest.approx(3.0)


def test_frames_without_forces_are_refused():
    with pytest.raises(ValueError, match="no forces"):
        collect_statistics([frame([1, 1], -2.0, np.zeros((2, 3)))])


def test_elements_of_which_no_energy_tells_are_named():
    def frame(numbers: list[int], energy: float) -> Data:
        return Data(z=torch.tensor(numbers), energy=torch.tensor([energy], dtype=torch.float64))

    frames = [frame([1, 8], -5.0), frame([6, 7], torch.nan), frame([1, 6], torch.nan)]
    assert elements_without_energy(frames, known=[]) == ["C", "N"]
    assert elements_without_energy(frames, known=["N"]) == ["C"]
