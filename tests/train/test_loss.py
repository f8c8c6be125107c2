import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from train.loss import label_weights, penalty, residuals, sum_over_labels
from train.statistics import collect_statistics

FORCE_SCALE = 2.0


@pytest.fixture
def crystals() -> Batch:
    """Three structures of 1, 2 and 4 atoms in cells of different volumes, with labels."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=random)

    return Batch.from_data_list(
        [
            Data(
                pos=normal(n, 3),
                energy=normal(1),
                forces=normal(n, 3),
                stress=normal(1, 3, 3),
                cell=torch.diag(torch.tensor([n, 2.0, -3.0], dtype=torch.float64))[None],
            )
            for n in (1, 2, 4)
        ]
    )


@pytest.fixture
def predicted(crystals) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    return {
        name: crystals[name] + torch.randn(crystals[name].shape, dtype=torch.float64, generator=random)
        for name in ("energy", "forces", "stress")
    }


def test_residuals_are_the_documented_formulas(crystals, predicted):
    found = {name: value.numpy() for name, value in residuals(predicted, crystals, FORCE_SCALE).items()}
    error = {name: (value - crystals[name]).numpy() for name, value in predicted.items()}
    atoms = np.array([1, 2, 4])
    volume = atoms * 2.0 * 3.0
    np.testing.assert_allclose(found["energy"], error["energy"] / atoms / FORCE_SCALE)
    np.testing.assert_allclose(found["forces"], error["forces"] / FORCE_SCALE)
    np.testing.assert_allclose(
        found["stress"], error["stress"] * volume[:, None, None] / atoms[:, None, None] / FORCE_SCALE
    )


def test_squared_error_of_zero_forces_is_one(splits):
    batch = Batch.from_data_list(list(splits.train))
    nothing = {"forces": torch.zeros_like(batch.forces)}
    found = residuals(nothing, batch, collect_statistics(splits.train).scale)["forces"]
    total, count = sum_over_labels(found, penalty("mse", 0.0))
    assert (total / count).item() == pytest.approx(1.0)


@pytest.mark.parametrize("delta", [0.01, 0.5])
def test_huber_is_a_parabola_that_goes_on_straight(delta):
    errors = torch.tensor([0.0, 0.5 * delta, -0.5 * delta, delta, 3.0, -3.0], dtype=torch.float64)
    expected = [0.0, delta**2 / 8, delta**2 / 8, delta**2 / 2, delta * (3 - delta / 2), delta * (3 - delta / 2)]
    assert penalty("huber", delta)(errors).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_missing_labels_count_nothing_and_give_no_gradient(loss):
    cost = penalty(loss, 0.1)
    predicted = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64, requires_grad=True)
    label = torch.tensor([0.5, torch.nan, 1.0], dtype=torch.float64)
    total, count = sum_over_labels(predicted - label, cost)
    total.backward()
    expected_total, expected_count = sum_over_labels(torch.tensor([0.5, 3.0], dtype=torch.float64), cost)
    assert total.item() == expected_total.item() > 0
    assert count.item() == expected_count.item() == 2
    assert predicted.grad[1] == 0
    assert (predicted.grad[[0, 2]] > 0).all()


def test_predictions_that_are_no_numbers_are_not_missing_labels(crystals, predicted):
    predicted["forces"][3, 1] = torch.nan
    crystals.forces[0] = torch.nan
    total, count = sum_over_labels(residuals(predicted, crystals, FORCE_SCALE)["forces"], torch.square)
    assert count.item() == crystals.forces.numel() - 3
    assert total.item() == float("inf")


def test_no_label_at_all_is_a_sum_of_nothing():
    total, count = sum_over_labels(torch.full((2, 3), torch.nan), torch.square)
    assert (total.item(), count.item()) == (0.0, 0.0)


@pytest.mark.parametrize("name", ["energy", "forces", "stress"])
def test_weights_of_frames_multiply_costs_and_not_counts(crystals, predicted, name):
    """Two structures of weight 2 and 0.5 cost as much as their own sums, times these."""
    crystals.weight = torch.ones(3, 3, dtype=torch.float64)
    column = ["energy", "forces", "stress"].index(name)
    crystals.weight[:, column] = torch.tensor([2.0, 1.0, 0.5])
    crystals[name][-1] = torch.nan
    found = residuals(predicted, crystals, FORCE_SCALE)[name]
    total, count = sum_over_labels(found, torch.square, label_weights(name, crystals))
    owner = crystals.batch if name == "forces" else torch.arange(3)
    expected = sum(
        weight * found[owner == number].square().nansum().item() for number, weight in enumerate((2.0, 1.0, 0.5))
    )
    assert total.item() == pytest.approx(expected)
    assert count.item() == (~found.isnan()).sum().item()


def test_a_missing_label_of_any_weight_gives_no_gradient():
    predicted = torch.ones(2, dtype=torch.float64, requires_grad=True)
    residual = predicted - torch.tensor([torch.nan, 0.0], dtype=torch.float64)
    total, _ = sum_over_labels(residual, torch.square, torch.tensor([1e300, 3.0], dtype=torch.float64))
    total.backward()
    assert predicted.grad.tolist() == [0.0, 6.0]
