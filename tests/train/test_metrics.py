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


def test_trivial_baseline_is_mean_training_energy_and_mean_absolute_force(computed):
    train_energy = np.array([-499.0, -502.0, -500.5])
    found = errors(trivial_prediction(train_energy, computed), computed)
    assert found["energy_mae_meV"] == pytest.approx(1000 * np.mean(np.abs(computed.energy - (-500.5))))
    assert found["forces_mae_meV_per_A"] == pytest.approx(1000 * np.mean(np.abs(computed.forces)))
