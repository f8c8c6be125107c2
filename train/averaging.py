"""Exponential moving average of the weights: what is validated, tested and kept."""

from typing import cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def validated_weights(trainer: Trainer, module: LightningModule) -> dict[str, Tensor]:
    """The ``state_dict`` of the averages, or of the module itself where nothing averages its weights."""
    # Lightning sets the attribute outside of the class, where its type is not seen.
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, ExponentialMovingAverage):
            return callback.averages.state_dict()
    return module.state_dict()


class ExponentialMovingAverage(WeightAveraging):
    r""":math:`\bar\theta \leftarrow d\,\bar\theta + (1 - d)\,\theta` after every step, with decay :math:`d`.

    Lightning's callback puts :math:`\bar\theta` into the model for validation and at the end, and into checkpoints as
    their ``state_dict``. Buffers are constants and left alone. One fused operation updates all weights, and nothing
    waits for the device.
    """

    def __init__(self, decay: float):
        self._update = get_ema_multi_avg_fn(decay)
        super().__init__(use_buffers=False, multi_avg_fn=self._update)

    @property
    def averaged(self) -> AveragedModel:
        """What holds the averages, from :meth:`setup` on."""
        return cast(AveragedModel, self._average_model)

    @property
    def averages(self) -> LightningModule:
        """The module with the averages as its weights."""
        return cast(LightningModule, self.averaged.module)

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        super().setup(trainer, module, stage)
        if stage == "fit":
            self._averages: list[Tensor] = list(self.averages.parameters())
            self._weights: list[Tensor] = list(module.parameters())

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        # Lightning copies the module before it is moved, and would fetch all weights from a GPU at every step.
        self.averaged.to(module.device)

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs, batch, batch_idx: int) -> None:
        """The update of AveragedModel, which would ask the device at every step whether it is the first one."""
        if trainer.global_step <= self._latest_update_step:
            return  # gradients are still being accumulated
        if self._latest_update_step:
            self._update(self._averages, self._weights, None)
        else:
            torch._foreach_copy_(self._averages, self._weights)
        self.averaged.n_averaged.add_(1)
        self._latest_update_step = trainer.global_step
