from dataclasses import replace

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch

from train.module import PotentialModule, loss_terms, new_module
from train.statistics import collect_statistics


@pytest.fixture
def batch(splits) -> Batch:
    return Batch.from_data_list(list(splits.test))


def test_loss_is_the_documented_formula(batch):
    random = np.random.default_rng(0)
    predicted = {
        "energy": batch.energy + torch.from_numpy(random.normal(size=len(batch.energy))),
        "forces": batch.forces + torch.from_numpy(random.normal(size=batch.forces.shape)),
    }
    terms = loss_terms(predicted, batch, force_scale=2.0)
    energy = (predicted["energy"] - batch.energy).numpy() / 5 / 2.0  # five atoms a frame
    forces = (predicted["forces"] - batch.forces).numpy() / 2.0
    assert terms["energy"].item() == pytest.approx(np.mean(energy**2))
    assert terms["forces"].item() == pytest.approx(np.mean(forces**2))


def test_force_loss_of_zero_forces_is_one(splits):
    batch = Batch.from_data_list(list(splits.train))
    nothing = {"energy": batch.energy, "forces": torch.zeros_like(batch.forces)}
    assert loss_terms(nothing, batch, collect_statistics(splits.train).scale)["forces"].item() == pytest.approx(1.0)


def test_new_potential_starts_at_the_reference_energy(splits, model, fit, batch):
    """Energies of some keV come out to a small part of an eV although the weights are float32."""
    statistics = collect_statistics(splits.train)
    module = new_module(model, fit, statistics, "float32").eval()
    reference = sum(statistics.shift[statistics.species.index(z)] for z in batch[0].z.tolist())
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    np.testing.assert_allclose(module(batch)["energy"].detach().double().numpy(), reference, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_checkpoint_reloads_to_identical_predictions(tmp_path, splits, model, fit, run, batch, dtype):
    from lightning.pytorch import Trainer

    module = new_module(model, fit, collect_statistics(splits.train), dtype)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, barebones=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    again = PotentialModule.load_from_checkpoint(tmp_path / "model.ckpt")
    expected, found = module.eval()(batch), again.eval()(batch)
    assert torch.equal(expected["energy"], found["energy"])
    assert torch.equal(expected["forces"], found["forces"])


def test_forces_are_there_without_gradients_being_asked_for(splits, model, fit, batch):
    module = new_module(model, fit, collect_statistics(splits.train), "float64")
    in_training = module(batch)["forces"]
    with torch.no_grad():
        in_validation = module.eval()(batch)["forces"]
    assert in_training.requires_grad
    assert not in_validation.requires_grad
    torch.testing.assert_close(in_training, in_validation)


def test_weights_scale_the_loss_terms(splits, model, fit, batch, monkeypatch):
    statistics = collect_statistics(splits.train)
    losses = {}
    for energy_weight, forces_weight in ((1.0, 0.0), (0.0, 1.0), (3.0, 2.0)):
        torch.manual_seed(0)
        fit = replace(fit, energy_weight=energy_weight, forces_weight=forces_weight)
        module = new_module(model, fit, statistics, "float64")
        monkeypatch.setattr(module, "log", lambda *args, **kwargs: None)
        losses[energy_weight, forces_weight] = module.training_step(batch, 0).item()
    assert losses[3.0, 2.0] == pytest.approx(3 * losses[1.0, 0.0] + 2 * losses[0.0, 1.0])
