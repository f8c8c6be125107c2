"""Properties of molecules in padded batches: what a readout makes of padding reaches no weight."""

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from pyg_cgconv import RadiusGraph
from train.options import FitOptions, ModelOptions
from train.padded_frames import PaddedFrames
from train.qm9_module import PropertyModule, new_property_module
from train.qm9_readout import READOUT_IRREPS
from train.qm9_statistics import collect_property_statistics

from .conftest import CUTOFF


@pytest.fixture(scope="module")
def molecules() -> list[Data]:
    random = np.random.default_rng(0)
    connect = RadiusGraph(CUTOFF)
    return [
        connect(
            Data(
                z=torch.from_numpy(random.choice([1, 6, 8], size=atoms)),
                pos=torch.from_numpy(random.normal(scale=1.5, size=(atoms, 3))),
                y=torch.from_numpy(random.uniform(0.5, 2.0, size=(1, 2))),
            )
        )
        for atoms in (5, 9, 3, 8, 7, 6, 4)
    ]


def gradients(module: PropertyModule, batch: Batch) -> list[torch.Tensor]:
    sums = module._loss_sums(module(batch), batch, stage="train")
    (loss,) = (total / count for total, count in sums.values())
    return list(torch.autograd.grad(loss, list(module.parameters()), materialize_grads=True))


@pytest.mark.parametrize("readout", READOUT_IRREPS)
def test_padding_does_not_change_gradients(molecules, readout):
    torch.manual_seed(0)
    model = ModelOptions(cutoff=CUTOFF, channels=4, lmax=1, layers=1, radial_hidden=(6,))
    statistics = collect_property_statistics(molecules, torch.cat([m.y[:, 1] for m in molecules]), readout)
    module = new_property_module(1, readout, model, FitOptions(), statistics, "float64")
    padded = PaddedFrames(molecules, CUTOFF, "cpu")
    numbers = torch.tensor([2, 0, 5])
    expected = gradients(module, Batch.from_data_list([molecules[i] for i in numbers]))
    found = gradients(module, padded.batch(numbers, padded.size_of(numbers)))
    assert max(gradient.abs().max() for gradient in expected) > 1e-6
    for gradient, other in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-11, atol=1e-12)
