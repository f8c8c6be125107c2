import pytest
import torch
from lightning.pytorch import Trainer
from torch_geometric.data import Batch

from datasets import QM9Sample
from pyg_cgconv import RadiusGraph
from train.options import FitOptions, ModelOptions
from train.qm9_module import NAME, PropertyModule, new_property_module
from train.qm9_readout import READOUT_IRREPS
from train.qm9_statistics import collect_property_statistics

from .conftest import CUTOFF

COLUMN = QM9Sample.target_index("U0")
FIT = FitOptions(loss="huber", huber_delta=0.1)


@pytest.fixture(scope="module")
def molecules():
    connect = RadiusGraph(CUTOFF)
    return [connect(molecule) for molecule in QM9Sample()[:24]]


@pytest.fixture
def batch(molecules):
    return Batch.from_data_list(molecules)


def new_module(molecules, readout="sum", dtype="float64"):
    torch.manual_seed(0)
    model = ModelOptions(cutoff=CUTOFF, channels=4, lmax=1, layers=2, radial_hidden=(8,))
    target = torch.cat([molecule.y[:, COLUMN] for molecule in molecules])
    statistics = collect_property_statistics(molecules, target, readout)
    return new_property_module(COLUMN, readout, model, FIT, statistics, dtype), statistics


@pytest.mark.parametrize("readout", READOUT_IRREPS)
def test_the_property_does_not_turn_with_the_molecule(molecules, batch, readout):
    module, _ = new_module(molecules, readout)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    before = module(batch)[NAME]
    batch.pos = batch.pos @ turn.T
    torch.testing.assert_close(module(batch)[NAME], before, rtol=1e-9, atol=1e-9)
    assert before.shape == (24,)


def test_a_new_model_without_weights_gives_the_best_guess_from_composition(molecules, batch):
    """Energies of 10 keV come out to a small part of a meV although the weights are float32."""
    module, statistics = new_module(molecules, dtype="float32")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        found = module(batch)[NAME]
    shift = dict(zip(statistics.species, (row[0] for row in statistics.shift), strict=True))
    expected = torch.tensor([sum(shift[z] for z in molecule.z.tolist()) for molecule in molecules], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)
    assert (found - batch.y[:, COLUMN]).square().mean().sqrt().item() == pytest.approx(statistics.spread, rel=1e-6)


def test_loss_is_the_huber_loss_in_units_of_the_spread(molecules, batch, monkeypatch):
    module, statistics = new_module(molecules)
    total, count = module._loss_sums(module(batch), batch, stage="train")[NAME]
    expected = torch.nn.functional.huber_loss(
        module(batch)[NAME] / statistics.spread, batch.y[:, COLUMN] / statistics.spread, delta=0.1
    )
    assert count == 24
    assert (total / count).item() == pytest.approx(expected.item(), rel=1e-6)


def test_loss_has_a_gradient_for_every_weight(molecules, batch):
    for readout in READOUT_IRREPS:
        module, _ = new_module(molecules, readout)
        total, _ = module._loss_sums(module(batch), batch, stage="train")[NAME]
        total.backward()
        lacking = [
            name for name, weight in module.named_parameters() if weight.numel() and not weight.grad.abs().sum() > 0
        ]
        assert not lacking, (readout, lacking)


def test_a_prediction_that_is_no_number_is_no_missing_label(molecules, batch):
    module, _ = new_module(molecules)
    predicted = {NAME: batch.y[:, COLUMN].clone()}
    predicted[NAME][5] = torch.nan
    module.forward = lambda batch: predicted
    module.validation_step(batch, 0)
    assert module.mean_error[NAME].compute() == module.mean_loss[f"val/{NAME}"].compute() == torch.inf


def test_checkpoint_reloads_to_identical_predictions(tmp_path, molecules, batch):
    module, _ = new_module(molecules, "extent")
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    again = PropertyModule.load_from_checkpoint(tmp_path / "model.ckpt")
    assert torch.equal(again.eval()(batch)[NAME], module.eval()(batch)[NAME])
    assert (again.column, again.spread) == (module.column, module.spread)
