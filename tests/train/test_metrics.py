from dataclasses import replace

import numpy as np
import pytest

from train.metrics import Labels, errors, trivial_prediction


@pytest.fixture
def computed() -> Labels:
    random = np.random.default_rng(0)
    return Labels(random.normal(-500.0, 0.1, size=4), random.normal(size=(10, 3)), np.array([2, 3, 4, 1]))


def test_errors_of_known_offsets_in_meV(computed):
    predicted = Labels(
        computed.energy + np.array([0.001, -0.002, 0.004, 0.001]), computed.forces - 0.005, computed.num_atoms
    )
    found = errors(predicted, computed)
    assert found["energy_mae_meV"] == pytest.approx(2.0)
    assert found["energy_rmse_meV"] == pytest.approx(np.sqrt(22 / 4))
    assert found["energy_mae_meV_per_atom"] == pytest.approx((1 / 2 + 2 / 3 + 4 / 4 + 1 / 1) / 4)
    assert found["forces_mae_meV_per_A"] == pytest.approx(5.0)
    assert found["forces_rmse_meV_per_A"] == pytest.approx(5.0)


def test_trivial_baseline_of_one_molecule_is_its_mean_energy_and_the_mean_absolute_force():
    random = np.random.default_rng(2)
    sizes, numbers = np.array([3, 3]), np.array([8, 1, 1, 8, 1, 1])
    train = Labels(np.array([-499.0, -502.0]), random.normal(size=(6, 3)), sizes, numbers=numbers)
    test = Labels(np.array([-500.0, -501.5]), random.normal(size=(6, 3)), sizes, numbers=numbers)
    found = errors(trivial_prediction(train, test), test)
    assert found["energy_mae_meV"] == pytest.approx(1000 * np.mean(np.abs(test.energy - (-500.5))))
    assert found["forces_mae_meV_per_A"] == pytest.approx(1000 * np.mean(np.abs(test.forces)))


def test_trivial_baseline_needs_atomic_numbers(computed):
    with pytest.raises(ValueError, match="train and test: expected labels with atomic numbers, got numbers=None"):
        trivial_prediction(computed, computed)


def test_trivial_baseline_of_different_molecules_is_the_sum_over_their_atoms():
    hydrogen, oxygen = -13.0, -2041.0
    train = Labels(
        np.array([2 * hydrogen + oxygen, 2 * oxygen]), None, np.array([3, 2]), numbers=np.array([1, 8, 1, 8, 8])
    )
    test = Labels(np.zeros(2), None, np.array([1, 4]), numbers=np.array([1, 1, 8, 8, 1]))
    expected = [hydrogen, 2 * hydrogen + 2 * oxygen]
    np.testing.assert_allclose(trivial_prediction(train, test).energy, expected, rtol=1e-12)


def test_stress_errors_are_given_in_two_units(computed):
    stress = np.random.default_rng(1).normal(size=(4, 3, 3))
    reference = replace(computed, stress=stress)
    found = errors(replace(computed, stress=stress + 0.002), reference)
    assert found["stress_mae_meV_per_A3"] == pytest.approx(2.0)
    assert found["stress_mae_GPa"] == pytest.approx(0.002 * 160.21766, rel=1e-5)


def test_force_errors_of_each_element(computed):
    numbers = np.array([8, 1, 6, 1, 1, 8, 1, 1, 1, 6])
    offset = np.select([numbers == 1, numbers == 6], [0.001, -0.002], 0.004)[:, None]
    found = errors(replace(computed, forces=computed.forces + offset), replace(computed, numbers=numbers))["species"]
    assert list(found) == ["H", "C", "O"]
    assert [row["forces_mae_meV_per_A"] for row in found.values()] == pytest.approx([1.0, 2.0, 4.0])


def test_missing_labels_are_left_out(computed):
    forces, stress = computed.forces.copy(), np.zeros((4, 3, 3))
    forces[:3], stress[1:] = np.nan, np.nan
    reference = replace(computed, forces=forces, stress=stress, numbers=np.array([6] * 3 + [1] * 7))
    found = errors(replace(computed, forces=computed.forces + 0.003, stress=np.full((4, 3, 3), 0.001)), reference)
    assert found["forces_mae_meV_per_A"] == pytest.approx(3.0)
    assert found["stress_mae_meV_per_A3"] == pytest.approx(1.0)
    assert list(found["species"]) == ["H"]


def test_predicted_stresses_that_are_no_numbers_are_not_missing_labels(computed):
    labels, stress = np.zeros((4, 3, 3)), np.zeros((4, 3, 3))
    labels[2:], stress[1, 0, 2], stress[3] = np.nan, np.nan, np.nan  # of the fourth frame there is no label
    found = errors(replace(computed, stress=stress), replace(computed, stress=labels))
    assert found["stress_mae_meV_per_A3"] == np.inf
    without = errors(
        replace(computed, stress=np.where(np.isnan(labels), stress, 0.0)), replace(computed, stress=labels)
    )
    assert without["stress_mae_meV_per_A3"] == 0.0


def test_predictions_that_are_no_numbers_are_not_missing_labels(computed):
    energy, forces = computed.energy.copy(), computed.forces.copy()
    energy[1], forces[4, 2] = np.nan, np.nan
    found = errors(replace(computed, energy=energy, forces=forces), computed)
    assert found["energy_mae_meV"] == found["energy_mae_meV_per_atom"] == found["forces_mae_meV_per_A"] == np.inf


def test_quantities_that_only_one_side_has_are_not_compared(computed):
    found = errors(replace(computed, stress=np.zeros((4, 3, 3))), replace(computed, forces=None))
    assert not any(name.startswith(("forces", "stress")) for name in found)


def test_errors_of_each_config_type_are_those_of_its_frames_alone(computed):
    types, numbers = np.array(["a", "b", "a", "b"]), np.array([1, 8] * 5)
    predicted = replace(computed, energy=computed.energy + np.arange(1, 5) / 10, forces=computed.forces * 1.5)
    found = errors(predicted, replace(computed, config_types=types, numbers=numbers))["config_types"]
    assert found["a"]["energy_mae_meV"] == pytest.approx(200.0)
    assert found["b"]["energy_mae_meV"] == pytest.approx(300.0)
    of_a = np.concatenate([computed.forces[:2], computed.forces[5:9]])
    assert found["a"]["forces_mae_meV_per_A"] == pytest.approx(500 * np.abs(of_a).mean())
    assert [found[name]["frames"] for name in "ab"] == [2, 2]


def test_a_label_that_no_frame_has_has_no_error(computed):
    none = replace(computed, energy=np.full(4, np.nan))
    assert not any(name.startswith("energy") for name in errors(computed, none))
    assert errors(computed, none)["forces_mae_meV_per_A"] == 0.0


def test_trivial_baseline_is_fitted_to_the_energies_that_there_are():
    numbers, sizes = np.array([1, 1, 1, 1, 1, 1]), np.array([2, 2, 2])
    train = Labels(np.array([-27.0, np.nan, -29.0]), None, sizes, numbers=numbers)
    np.testing.assert_allclose(trivial_prediction(train, train).energy, [-28.0] * 3)
