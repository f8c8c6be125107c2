"""The training step: loss, validation errors and optimiser around a potential."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch_geometric.data import Batch

from datasets.atoms_labels import MOMENTS
from pyg_cgconv.potential import Potential, Prepared, prepared
from train.epoch_mean import EpochMeans
from train.freezing import freeze
from train.loss import difference, label_weights, penalty, residuals, sum_over_labels
from train.metrics import MEV_PER_EV, UNITS
from train.options import FitOptions, ModelOptions
from train.schedule import constant, cosine, plateau, training_progress, training_timer
from train.soap import TURN_EVERY, Soap
from train.statistics import Statistics

MONITOR = "val/loss"
STAGES = ("train", "val")


class PotentialModule(LightningModule):
    """A potential and the way it is fitted; a checkpoint holds all that is needed to build it again.

    Args:
        potential: arguments of :class:`pyg_cgconv.potential.Potential`.
        fit: arguments of :class:`train.options.FitOptions`.
        quantities: what is predicted and compared with labels: those of :data:`train.loss.QUANTITIES` that the training
            frames have.
        frozen: parameters of the potential that stay as they are.
        frames: numbers by which the training frames are known again; default what they give to ``potential``.
        units: in which errors of charges (e) and dipoles (e Angstrom) are counted in the loss.
    """

    def __init__(
        self,
        potential: dict,
        fit: dict,
        quantities: Sequence[str] = ("energy", "forces"),
        frozen: Sequence[str] = (),
        frames: Sequence[float] | None = None,
        units: dict[str, float] | None = None,
    ):
        super().__init__()
        self.save_hyperparameters()
        self.fit_options = FitOptions(**fit)
        self.potential = Potential(**potential)
        self.potential.validate = False  # the frames were checked before the training
        freeze(self.potential, frozen)
        self.units = units
        self.force_scale = self.potential.scale.mean().item()
        self.quantities = tuple(quantities)
        self.cost = penalty(self.fit_options.loss, self.fit_options.huber_delta)
        # Means over all labels since the last validation.
        self.mean_loss = EpochMeans(f"{stage}/{name}" for stage in STAGES for name in self.quantities)
        self.mean_error = EpochMeans(self.quantities)

    def prepare(self, batch: Batch) -> Prepared:
        """The batch with what no weight changes, for :meth:`forward` and :meth:`loss`."""
        return prepared(self.potential, batch, forces=not {"forces", "stress"}.isdisjoint(self.quantities))

    def forward(self, batch: Batch | Prepared) -> dict[str, Tensor]:
        derived = {f"compute_{name}": name in self.quantities for name in ("forces", "stress", "energies")}
        found = self.potential(batch, **derived)
        return {name: found[name] for name in self.quantities}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.loss(batch, self.loss_weights(training_progress(self.trainer, self.trainer.global_step)))

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Gradients by the weights alone: forces are gradients by functions of the edges, which need none."""
        weights = [weight for weight in self.parameters() if weight.requires_grad]
        super().backward(loss, *args, **{**kwargs, "inputs": weights})

    def loss(self, batch: Batch | Prepared, weights: dict[str, float]) -> Tensor:
        """The loss of a training ``batch``, a scalar; of several devices their mean is that of all of their frames."""
        labels = batch.data if isinstance(batch, Prepared) else batch
        sums = self._loss_sums(self(batch), labels, stage="train")
        counts = torch.stack([count for _, count in sums.values()])
        # Devices differ in labels, as molecules in size. DDP averages gradients: their mean is that of one device with
        # all frames if each divides its sum by the mean number of labels.
        counts = self.trainer.strategy.reduce(counts, reduce_op="mean").clamp(min=1.0 / self.trainer.world_size)
        terms = zip(sums.items(), counts, strict=True)
        return sum(weights[name] * total / count for (name, (total, _)), count in terms)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        predicted = self(batch)
        self._loss_sums(predicted, batch, stage="val")
        for name, error in self.reported_errors(predicted, batch).items():
            self.mean_error[name].update(*sum_over_labels(error.detach(), torch.abs))

    def on_validation_epoch_end(self) -> None:
        """Logs one line for an epoch, the training loss included, before the checkpoints are written."""
        means = self.mean_loss.compute()
        weights = self.loss_weights(1.0)  # those of the end, so that losses of all epochs can be compared
        for stage in STAGES:
            terms = {name: means[f"{stage}/{name}"] for name in self.quantities}
            loss = sum(weights[name] * term for name, term in terms.items() if weights[name])
            self.log_dict({f"{stage}/{name}_loss": term for name, term in terms.items()})
            self.log(f"{stage}/loss", loss, prog_bar=True)
        for name, error in self.mean_error.compute().items():
            self.log(self.error_column(name), error, prog_bar=True)
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        self.log("seconds", training_timer(self.trainer).time_elapsed())
        self.mean_loss.reset()
        self.mean_error.reset()
        if not math.isfinite(loss):
            raise ValueError(
                f"the validation loss is {float(loss)}: the training diverged, try an lr below {self.fit_options.lr}"
            )
        for schedule in self._schedules():
            if isinstance(schedule, ReduceLROnPlateau):
                schedule.step(loss)

    def predict_step(self, batch: Batch, batch_idx: int = 0, dataloader_idx: int = 0) -> dict[str, Tensor]:
        return {key: value.detach().double().cpu() for key, value in self(batch).items()}

    def configure_optimizers(self):
        fit = self.fit_options
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if fit.optimizer == "soap":
            optimizer: Optimizer = Soap(trained, lr=fit.lr)
        else:
            optimizer = torch.optim.Adam(trained, lr=fit.lr, amsgrad=True, fused=True)
        if fit.schedule == "cosine":
            schedules = cosine(optimizer, fit.warmup_steps, lambda step: training_progress(self.trainer, step))
        elif fit.schedule == "plateau":
            schedules = plateau(optimizer, fit.warmup_steps, fit.plateau_factor, fit.plateau_patience, MONITOR)
        else:
            schedules = constant(optimizer, fit.warmup_steps)
        return [optimizer], schedules

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        inner = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        if isinstance(inner, Soap) and self.global_step % TURN_EVERY == 0:
            inner.turn()
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    def lr_scheduler_step(self, scheduler: LRScheduler, metric) -> None:
        # Lightning would step a plateau schedule after the checkpoint of the epoch, which would know nothing of it.
        if not isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step()

    def _schedules(self) -> list[LRScheduler]:
        schedules = self.lr_schedulers() or []
        return schedules if isinstance(schedules, list) else [schedules]

    def loss_weights(self, progress: float) -> dict[str, float]:
        """Weights of the terms when the part ``progress``, 0 to 1, of the training is over."""
        fit = self.fit_options
        stage_two = fit.stage_two_start <= progress and fit.stage_two_start < 1
        return {
            "energy": fit.stage_two_energy_weight if stage_two else fit.energy_weight,
            "forces": fit.forces_weight,
            **{name: getattr(fit, f"{name}_weight") for name in ("stress", "energies", "charges", "dipole")},
        }

    @staticmethod
    def frame_statistics(hyperparameters: Mapping) -> list[float]:
        """What the training frames contribute to ``hyperparameters``: it tells them from others."""
        if hyperparameters.get("frames") is not None:
            return list(hyperparameters["frames"])
        known = hyperparameters["potential"]
        return [*known["species"], *np.ravel(known["shift"]), *np.ravel(known["scale"]), known["avg_num_neighbors"]]

    def residuals(self, predicted: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """What the loss is made of: errors without a unit, NaN where there is no label."""
        return residuals(predicted, batch, self.force_scale, self.units)

    def label_weights(self, name: str, batch: Batch) -> Tensor | None:
        """Factors on what the errors of ``name`` cost, of a shape that goes with theirs; None if all count alike."""
        return label_weights(name, batch)

    def reported_errors(self, predicted: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Errors in the units of the validation log, NaN where there is no label."""
        return {name: difference(value, batch[name]) * MEV_PER_EV for name, value in predicted.items()}

    def error_column(self, name: str) -> str:
        """What the mean absolute error of the quantity ``name`` is called in the log."""
        return f"val/{name}_mae_{UNITS[name]}"

    def _loss_sums(self, predicted: dict[str, Tensor], batch: Batch, stage: str) -> dict[str, tuple[Tensor, Tensor]]:
        """Sum of the penalties and number of labels for each quantity, added to the means of ``stage``."""
        found = self.residuals(predicted, batch)
        sums = {
            name: sum_over_labels(residual, self.cost, self.label_weights(name, batch))
            for name, residual in found.items()
        }
        for name, (total, count) in sums.items():
            self.mean_loss[f"{stage}/{name}"].update(total.detach(), count)
        return sums


def new_module(
    model: ModelOptions,
    fit: FitOptions,
    statistics: Statistics,
    dtype: str,
    quantities: Sequence[str] = ("energy", "forces"),
) -> PotentialModule:
    """A potential with fresh weights, told of its training frames by ``statistics``.

    Raises:
        ValueError: the weights of all ``quantities`` are 0.
    """
    check_something_is_fitted(fit, quantities)
    potential = {
        **asdict(model),
        "species": list(statistics.species),
        "properties": properties_for(quantities),
        "heads": statistics.heads and list(statistics.heads),
        "shift": np.array(statistics.shift).tolist(),
        "scale": [[scale] for scale in statistics.scale] if isinstance(statistics.scale, tuple) else statistics.scale,
        "avg_num_neighbors": statistics.num_neighbors,
        "dtype": dtype,
    }
    return PotentialModule(potential, asdict(fit), list(quantities), units=statistics.units)


def properties_for(quantities: Sequence[str]) -> list[str]:
    """What a potential has to give so that ``quantities`` can be learned."""
    moments = [name for name in quantities if name in MOMENTS]
    return moments if len(moments) == len(quantities) else ["energy", *moments]


def check_something_is_fitted(fit: FitOptions, quantities: Sequence[str]) -> None:
    """Raises ValueError where the weights of all ``quantities`` are 0."""
    weights = {f"{name}_weight": getattr(fit, f"{name}_weight") for name in quantities}
    if not any(weights.values()):
        raise ValueError(f"{weights} leaves nothing to fit of what the training frames have: raise one of them")
