from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch_geometric.data import Batch

from train.module import PotentialModule, new_module
from train.qm9_module import new_property_module
from train.statistics import collect_statistics


@pytest.fixture
def batch(splits) -> Batch:
    return Batch.from_data_list(list(splits.test))


def test_new_potential_starts_at_the_reference_energy(splits, model, fit, batch):
    """Energies of some keV come out to a small part of an eV although the weights are float32."""
    statistics = collect_statistics(splits.train)
    module = new_module(model, fit, statistics, "float32").eval()
    reference = sum(statistics.shift[statistics.species.index(z)] for z in batch[0].z.tolist())
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    np.testing.assert_allclose(module(batch)["energy"].detach().double().numpy(), reference, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_checkpoint_reloads_to_identical_predictions(tmp_path, splits, model, fit, run, batch, dtype):
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


def test_repulsion_is_in_what_is_trained(splits, model, fit, batch):
    """With the same weights, energies differ by that of nuclei, which is all in bonds that are shorter than usual."""
    torch.manual_seed(0)
    plain = new_module(model, fit, collect_statistics(splits.train), "float64")
    repelling = new_module(replace(model, zbl=True), fit, collect_statistics(splits.train), "float64")
    repelling.load_state_dict(plain.state_dict())
    assert (repelling(batch)["energy"] > plain(batch)["energy"]).all()
    with pytest.raises(ValueError, match="zbl=True: qm9 learns a property"):
        new_property_module(0, "sum", replace(model, zbl=True), fit, None, "float32")


def test_weights_scale_the_loss_terms(splits, model, fit, batch):
    module = new_module(model, fit, collect_statistics(splits.train), "float64")
    module.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    energy, forces, both = (
        module.loss(batch, {"energy": energy_weight, "forces": forces_weight}).item()
        for energy_weight, forces_weight in ((1.0, 0.0), (0.0, 1.0), (3.0, 2.0))
    )
    assert both == pytest.approx(3 * energy + 2 * forces)


def test_nothing_to_fit_is_named(splits, model, fit):
    fit = replace(fit, energy_weight=0.0, forces_weight=0.0)
    with pytest.raises(ValueError, match=r"'forces_weight': 0.0} leaves nothing to fit"):
        new_module(model, fit, collect_statistics(splits.train), "float64")


def test_second_stage_raises_the_energy_weight(splits, model, fit):
    fit = replace(fit, stage_two_start=0.75, stage_two_energy_weight=50.0)
    module = new_module(model, fit, collect_statistics(splits.train), "float64")
    assert [module.loss_weights(part)["energy"] for part in (0.0, 0.74, 0.75, 1.0)] == [10.0, 10.0, 50.0, 50.0]
    assert module.loss_weights(0.0)["forces"] == module.loss_weights(1.0)["forces"] == fit.forces_weight


def test_there_is_no_second_stage_by_default(splits, model, fit):
    module = new_module(model, fit, collect_statistics(splits.train), "float64")
    assert module.loss_weights(0.0) == module.loss_weights(1.0)


def test_a_predicted_force_that_is_no_number_is_no_missing_label(splits, model, fit, batch):
    module = new_module(model, fit, collect_statistics(splits.train), "float64")
    predicted = {"energy": batch.energy + 0.002, "forces": batch.forces.clone()}
    predicted["forces"][3, 1] = torch.nan
    module.forward = lambda batch: predicted
    module.validation_step(batch, 0)
    assert module.mean_error["forces"].compute() == module.mean_loss["val/forces"].compute() == torch.inf
    assert module.mean_error["energy"].compute().item() == pytest.approx(2.0)
