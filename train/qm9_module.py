"""The training step for a property of molecules: its loss, its validation error, the model's readout."""

import math
from dataclasses import asdict

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch_geometric.data import Batch

from train.loss import sum_over_labels
from train.module import STAGES, PotentialModule
from train.options import FitOptions, ModelOptions
from train.qm9_readout import READOUT_IRREPS, PropertyReadout
from train.qm9_statistics import PropertyStatistics
from train.schedule import training_timer

NAME = "property"


class PropertyModule(PotentialModule):
    """A model of one property and the way it is fitted; a checkpoint holds all that is needed to build it again.

    The loss is the mean penalty of the error in units of ``spread``.

    Args:
        column: of the batch's ``y``, that holds the property.
        readout: arguments of :class:`train.qm9_readout.PropertyReadout`.
        spread: unit of the loss, in that of the property.
        potential: arguments of :class:`pyg_cgconv.Potential`.
        fit: arguments of :class:`train.options.FitOptions`.
    """

    def __init__(self, column: int, readout: dict, spread: float, potential: dict, fit: dict):
        super().__init__(potential, fit, quantities=(NAME,))
        self.column, self.spread = column, spread
        self.readout = PropertyReadout(**readout)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        outputs = self.potential.atomic_outputs(batch)
        return {NAME: self.readout(outputs, self.potential.species_of_number[batch.z], batch)}

    def loss_weights(self, progress: float) -> dict[str, float]:
        return {NAME: 1.0}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        predicted = self(batch)
        self._loss_sums(predicted, batch, stage="val")
        error = (predicted[NAME] - batch.y[:, self.column]).detach()
        self.mean_error[NAME].update(*sum_over_labels(error, torch.abs))

    def on_validation_epoch_end(self) -> None:
        losses = {stage: self.mean_loss[f"{stage}/{NAME}"].compute() for stage in STAGES}
        for stage, loss in losses.items():
            self.log(f"{stage}/loss", loss, prog_bar=True, sync_dist=True)
        self.log("val/mae", self.mean_error[NAME].compute(), prog_bar=True, sync_dist=True)
        self.log("lr", self.optimizers().param_groups[0]["lr"], sync_dist=True)
        self.log("seconds", training_timer(self.trainer).time_elapsed(), sync_dist=True)
        for metric in (*self.mean_loss.values(), *self.mean_error.values()):
            metric.reset()
        if not math.isfinite(losses["val"]):
            raise ValueError(
                f"the validation loss is {float(losses['val'])}: the training diverged, try an lr below "
                f"{self.fit_options.lr}"
            )
        for schedule in self._schedules():
            if isinstance(schedule, ReduceLROnPlateau):
                schedule.step(losses["val"])

    def _loss_sums(self, predicted: dict[str, Tensor], batch: Batch, stage: str) -> dict[str, tuple[Tensor, Tensor]]:
        residual = (predicted[NAME] - batch.y[:, self.column]) / self.spread
        total, count = sum_over_labels(residual, self.cost)
        self.mean_loss[f"{stage}/{NAME}"].update(total.detach(), count)
        return {NAME: (total, count)}


def new_property_module(
    column: int, readout: str, model: ModelOptions, fit: FitOptions, statistics: PropertyStatistics, dtype: str
) -> PropertyModule:
    """A model with fresh weights, told of its training molecules by ``statistics``."""
    potential = {
        **asdict(model),
        "species": list(statistics.species),
        "readout_irreps": READOUT_IRREPS[readout],
        "avg_num_neighbors": statistics.num_neighbors,
        "scale": 1.0,
        "dtype": dtype,
    }
    shift, scale = [list(row) for row in statistics.shift], list(statistics.scale)
    return PropertyModule(
        column, {"readout": readout, "shift": shift, "scale": scale}, statistics.spread, potential, asdict(fit)
    )
