"""The training step: loss, validation errors and optimiser around a potential."""

import math
from dataclasses import asdict

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch_geometric.data import Batch
from torchmetrics import MeanAbsoluteError

from pyg_cgconv.potential import Potential
from train.metrics import MEV_PER_EV
from train.options import FitOptions, ModelOptions
from train.schedule import constant, cosine, plateau, training_progress, training_timer
from train.statistics import Statistics

MONITOR = "val/loss"


def loss_terms(predicted: dict[str, Tensor], batch: Batch, force_scale: float) -> dict[str, Tensor]:
    r"""Mean squared errors without a unit; :math:`\sigma` is the rms force in training, :math:`a` 1 Angstrom.

    .. math::
        L_E = \frac{1}{B} \sum_b \left( \frac{E_b - \hat E_b}{n_b\, \sigma a} \right)^2 \qquad
        L_F = \frac{1}{3 N} \sum_{i, k} \left( \frac{F_{ik} - \hat F_{ik}}{\sigma} \right)^2

    Args:
        predicted: ``energy`` (B,) in eV and ``forces`` (N, 3) in eV/Angstrom.
        batch: the frames with their ``energy`` and ``forces``.
        force_scale: :math:`\sigma`, eV/Angstrom.
    """
    num_atoms = batch.ptr.diff()
    energy = (predicted["energy"] - batch.energy) / (num_atoms * force_scale)
    forces = (predicted["forces"] - batch.forces) / force_scale
    return {"energy": energy.square().mean(), "forces": forces.square().mean()}


class PotentialModule(LightningModule):
    """A potential and the way it is fitted; a checkpoint holds all that is needed to build it again.

    Args:
        potential: arguments of :class:`pyg_cgconv.potential.Potential`.
        fit: arguments of :class:`train.options.FitOptions`.
    """

    def __init__(self, potential: dict, fit: dict):
        super().__init__()
        self.save_hyperparameters()
        self.fit_options = FitOptions(**fit)
        self.potential = Potential(**potential)
        self.potential.validate = False  # the frames were checked before the training
        self.force_scale = potential["scale"]
        self.energy_error = MeanAbsoluteError()
        self.forces_error = MeanAbsoluteError()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.potential(batch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._loss(self(batch), batch, stage="train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        predicted = self(batch)
        loss = self._loss(predicted, batch, stage="val")
        if not math.isfinite(loss):
            raise ValueError(
                f"the validation loss is {loss.item()}: the training diverged, try an lr below {self.fit_options.lr}"
            )
        self.energy_error(predicted["energy"].detach() * MEV_PER_EV, batch.energy * MEV_PER_EV)
        self.forces_error(predicted["forces"].detach() * MEV_PER_EV, batch.forces * MEV_PER_EV)
        self.log("val/energy_mae_meV", self.energy_error, batch_size=batch.num_graphs)
        self.log("val/forces_mae_meV_per_A", self.forces_error, batch_size=batch.num_graphs, prog_bar=True)

    def on_train_epoch_end(self) -> None:
        self.log("lr", self.optimizers().param_groups[0]["lr"])
        self.log("seconds", training_timer(self.trainer).time_elapsed())

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        return {key: value.detach().double().cpu() for key, value in self(batch).items()}

    def configure_optimizers(self):
        fit = self.fit_options
        optimizer = torch.optim.Adam(self.parameters(), lr=fit.lr, amsgrad=True, fused=True)
        if fit.schedule == "cosine":
            schedules = cosine(optimizer, fit.warmup_steps, lambda step: training_progress(self.trainer, step))
        elif fit.schedule == "plateau":
            schedules = plateau(optimizer, fit.warmup_steps, fit.plateau_factor, fit.plateau_patience, MONITOR)
        else:
            schedules = constant(optimizer, fit.warmup_steps)
        return [optimizer], schedules

    def _loss(self, predicted: dict[str, Tensor], batch: Batch, stage: str) -> Tensor:
        fit = self.fit_options
        terms = loss_terms(predicted, batch, self.force_scale)
        loss = fit.energy_weight * terms["energy"] + fit.forces_weight * terms["forces"]
        values = {"loss": loss, "energy_loss": terms["energy"], "forces_loss": terms["forces"]}
        for name, value in values.items():
            self.log(
                f"{stage}/{name}",
                value.detach(),
                batch_size=batch.num_graphs,
                on_step=False,
                on_epoch=True,
                prog_bar=name == "loss",
            )
        return loss


def new_module(model: ModelOptions, fit: FitOptions, statistics: Statistics, dtype: str) -> PotentialModule:
    """A potential with fresh weights, told of its training frames by ``statistics``."""
    potential = {
        **asdict(model),
        "species": list(statistics.species),
        "shift": list(statistics.shift),
        "scale": statistics.scale,
        "avg_num_neighbors": statistics.num_neighbors,
        "dtype": dtype,
    }
    return PotentialModule(potential, asdict(fit))
