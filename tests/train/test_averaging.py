from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule

from train.averaging import ExponentialMovingAverage


class Number(LightningModule):
    def __init__(self):
        super().__init__()
        self.value = torch.nn.Parameter(torch.zeros(1))
        self.register_buffer("constant", torch.tensor([7], dtype=torch.int64))


def test_average_is_the_recursion_and_ends_in_the_model():
    decay, module = 0.9, Number()
    average = ExponentialMovingAverage(decay)
    average.setup(None, module, "fit")
    values, expected = [1.0, 4.0, -2.0, 3.0], 1.0  # the first step sets the average
    for step, value in enumerate(values, start=1):
        module.value.data.fill_(value)
        average.on_train_batch_end(SimpleNamespace(global_step=step), module, None, None, 0)
        expected = decay * expected + (1 - decay) * value if step > 1 else value
    average.on_train_end(None, module)
    assert module.value.item() == pytest.approx(expected)
    assert module.constant.item() == 7


def test_average_lies_where_the_model_is(device):
    """Lightning copies the model while it is still on the host."""
    module = Number()
    average = ExponentialMovingAverage(0.9)
    average.setup(None, module, "fit")
    average.on_train_start(None, module.to(device))
    assert all(weight.device.type == device.type for weight in average._average_model.parameters())
