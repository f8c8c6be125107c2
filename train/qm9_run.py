"""One training on a property of molecules, and the run folder that it fills."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from datasets import QM9
from train.captured_fit import captures, padding_percent
from train.checkpoints import BEST, LAST
from train.data import FrameDataModule, Splits, check_species
from train.loop import device_name, fitting_trainer, quiet_lightning
from train.metrics import MEV_PER_EV
from train.options import FitOptions, ModelOptions, RunOptions
from train.plots import DATA_COLOR, REFERENCE_COLOR, read_log
from train.qm9_module import NAME, PropertyModule, new_property_module
from train.qm9_readout import READOUT_OF_TARGET
from train.qm9_statistics import collect_property_statistics
from train.report import describe_run, versions, write_json
from train.schedule import training_timer


@dataclass(frozen=True)
class Property:
    """What is learned.

    Args:
        name: for tables and plots.
        column: of the molecules' ``y``.
        readout: as in :class:`train.qm9_readout.PropertyReadout`.
        unit: in which errors are reported.
        factor: from the data's unit to that one.
    """

    name: str
    column: int
    readout: str
    unit: str
    factor: float = 1.0

    @classmethod
    def of_qm9(cls, target: str) -> "Property":
        """A target of QM9; errors of energies are reported in meV, as in publications."""
        unit = QM9.unit(target)
        unit, factor = ("meV", MEV_PER_EV) if unit == "eV" else (unit, 1.0)
        return cls(target, QM9.target_index(target), READOUT_OF_TARGET[target], unit, factor)

    def values(self, molecules: Sequence[Data]) -> Tensor:
        """(molecules,) float64, in the data's unit."""
        return torch.cat([molecule.y[:, self.column] for molecule in molecules])


def train_property(
    learned: Property, splits: Splits, folder: Path, model: ModelOptions, fit: FitOptions, run: RunOptions
) -> dict:
    """Fits a model to ``splits.train`` and fills ``folder`` with checkpoints, log, plots and ``metrics.json``.

    With ``run.resume`` it goes on from the last checkpoint in ``folder``. The test molecules are predicted with the
    checkpoint of least validation loss, read back from its file.

    Args:
        splits: molecules with neighbour lists within ``model.cutoff``.
        folder: an existing folder.

    Returns:
        What is written to ``metrics.json``; nothing in the processes of devices other than the first.
    """
    check_species(splits)
    if run.threads:
        torch.set_num_threads(run.threads)
    torch.set_float32_matmul_precision(run.matmul_precision)
    with quiet_lightning():
        lightning.seed_everything(run.seed, workers=True, verbose=False)
        data = FrameDataModule(splits, fit.batch_size, run.num_workers, run.seed)
        statistics = collect_property_statistics(splits.train, learned.values(splits.train), learned.readout)
        module = new_property_module(learned.column, learned.readout, model, fit, statistics, run.dtype)
        if run.resume:
            check_same_molecules(module, folder / LAST)
        captured = captures(model, fit, run, splits.train)
        trainer = fitting_trainer(folder, fit, run, captured)
        facts = {
            "data": splits.name,
            "target": learned.name,
            "frames": splits.sizes(),
            "parameters": sum(weight.numel() for weight in module.parameters() if weight.requires_grad),
            "device": device_name(trainer),
            "dtype": run.dtype,
            "padding_percent": padding_percent(splits.train, fit.batch_size) if captured else None,
        }
        if trainer.is_global_zero:
            print(describe_run(facts, folder), flush=True)
        trainer.fit(module, data, ckpt_path=folder / LAST if run.resume else None, weights_only=False)
        if not trainer.is_global_zero:
            return {}
        facts |= {
            "seconds": training_timer(trainer).time_elapsed(),
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
        }
        best = PropertyModule.load_from_checkpoint(folder / BEST, map_location="cpu", weights_only=False)
        best = best.to("cuda" if run.accelerator == "gpu" else "cpu").eval()
        validation, test = (predict_property(best, loader) for loader in data.predict_dataloader())
    return report(learned, folder, facts, splits, validation, test)


def check_same_molecules(module: PropertyModule, checkpoint: Path) -> None:
    """Raises ValueError where the training molecules are not those that the run of ``checkpoint`` began with."""
    kept = torch.load(checkpoint, map_location="cpu", weights_only=False)["hyper_parameters"]
    before, now = kept["readout"], module.hparams["readout"]
    same = np.shape(before["shift"]) == np.shape(now["shift"]) and np.allclose(
        [*np.ravel(before["shift"]), *before["scale"], kept["spread"]],
        [*np.ravel(now["shift"]), *now["scale"], module.spread],
        rtol=1e-6,
    )
    if not same:
        raise ValueError(
            f"resume={str(checkpoint.parent)!r}: the run began with other training molecules than these; restore the "
            "files that its config.yaml names, or begin a new run"
        )


def predict_property(module: PropertyModule, loader: DataLoader) -> np.ndarray:
    """The property (molecules,) that ``module`` gives, float64 in the data's unit, on the device of its weights."""
    with torch.no_grad():
        return torch.cat([module.predict_step(batch.to(module.device))[NAME] for batch in loader]).numpy()


# === results ===


def property_errors(learned: Property, predicted: np.ndarray, computed: np.ndarray) -> dict:
    """Mean absolute and root-mean-square error in ``learned.unit``."""
    error = learned.factor * (predicted - computed)
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt(np.square(error).mean())),
        "unit": learned.unit,
    }


def composition_guess(splits: Splits, learned: Property) -> np.ndarray:
    """What a model without geometry says of the test molecules: the best linear function of their numbers of atoms."""
    numbers = torch.cat([molecule.z for molecule in splits.train]).unique()

    def counts(molecules: Sequence[Data]) -> np.ndarray:
        rows = [(molecule.z[:, None] == numbers).sum(dim=0).tolist() for molecule in molecules]
        return np.column_stack([np.array(rows, dtype=np.float64), np.ones(len(rows))])

    fit, *_ = np.linalg.lstsq(counts(splits.train), learned.values(splits.train).numpy(), rcond=None)
    return counts(splits.test) @ fit


def report(
    learned: Property, folder: Path, facts: dict, splits: Splits, validation: np.ndarray, test: np.ndarray
) -> dict:
    """Writes ``metrics.json`` and the plots, prints the errors of the predictions ``validation`` and ``test``."""
    computed = learned.values(splits.test).numpy()
    metrics = facts | {
        "test": property_errors(learned, test, computed),
        "validation": property_errors(learned, validation, learned.values(splits.validation).numpy()),
        "baseline": property_errors(learned, composition_guess(splits, learned), computed),
        "versions": versions(),
    }
    write_json(folder / "metrics.json", metrics)
    title = f"{learned.name} of {splits.name}, {len(splits.train)} training molecules"
    parity_plot(folder / "parity.png", learned, test, computed, f"{title}: {len(splits.test)} test molecules")
    learning_curve(folder / "learning_curve.png", folder / "metrics.csv", learned, title)
    print(error_lines(metrics, folder), flush=True)
    return metrics


def error_lines(metrics: dict, folder: Path) -> str:
    """Test errors beside those of a model without geometry."""
    rows = {"this model, test molecules": metrics["test"], "least squares on composition": metrics["baseline"]}
    lines = [f"{metrics['target'] + ', mean absolute error':<32}"]
    lines += [f"{label:<32}{row['mae']:>12.4g} {row['unit']}" for label, row in rows.items()]
    effort = f"{metrics['epochs']} epochs, {metrics['steps']} steps in {metrics['seconds']:.0f} s"
    return "\n".join(["", *lines, "", f"{effort}; results in {folder}"])


def parity_plot(path: Path, learned: Property, predicted: np.ndarray, computed: np.ndarray, title: str) -> None:
    """Predicted against computed values of the test molecules, and a histogram of the errors."""
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    figure.suptitle(title)
    parity, histogram = figure.subplots(1, 2)
    unit = QM9.unit(learned.name)
    low, high = min(computed.min(), predicted.min()), max(computed.max(), predicted.max())
    parity.plot([low, high], [low, high], color=REFERENCE_COLOR, linewidth=1)
    parity.plot(computed, predicted, ".", color=DATA_COLOR, markersize=3, alpha=0.5, rasterized=True)
    parity.set_xlabel(f"computed {learned.name} ({unit})")
    parity.set_ylabel(f"predicted {learned.name} ({unit})")
    parity.set_aspect("equal", adjustable="box")
    histogram.hist(learned.factor * (predicted - computed), bins=60, color=DATA_COLOR)
    histogram.set_xlabel(f"error ({learned.unit})")
    histogram.set_ylabel("molecules")
    histogram.set_title(f"MAE {property_errors(learned, predicted, computed)['mae']:.3g} {learned.unit}")
    figure.savefig(path, dpi=150)


def learning_curve(path: Path, log: Path, learned: Property, title: str) -> None:
    """Losses and validation error on logarithmic scales, and the learning rate, against epochs."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    figure.suptitle(title)
    loss, error, rate = figure.subplots(1, 3)
    for name, label in (("train/loss", "training"), ("val/loss", "validation")):
        loss.plot(*read_log(log, name), label=label)
    loss.set_ylabel("loss (without a unit)")
    loss.legend()
    epochs, mae = read_log(log, "val/mae")
    error.plot(epochs, learned.factor * mae)
    error.set_ylabel(f"mean absolute validation error ({learned.unit})")
    rate.plot(*read_log(log, "lr"), color=REFERENCE_COLOR)
    rate.set_ylabel("learning rate")
    for axes in (loss, error, rate):
        axes.set_xlabel("epoch")
        axes.set_yscale("linear" if axes is rate else "log")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
