"""One training on a property of molecules, and the run folder that it fills."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from datasets import QM9
from train.data import FrameDataModule, Splits, check_species
from train.fitting import fit_module, session, working_in
from train.html_report import write_report
from train.metrics import MEV_PER_EV
from train.options import FitOptions, ModelOptions, RunOptions
from train.plots import DATA_COLOR, draw_parity, learning_curve, read_log
from train.property_report import property_report
from train.qm9_module import ERROR_COLUMN, NAME, PropertyModule, new_property_module
from train.qm9_readout import READOUT_OF_TARGET
from train.qm9_statistics import collect_property_statistics
from train.report import versions, write_json
from train.run_log import say
from train.statistics import composition


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
    """Fits a model to ``splits.train`` and fills ``folder`` with checkpoints, log, plots, report, ``metrics.json``.

    With ``run.resume`` it goes on from the last checkpoint in ``folder``. The test molecules are predicted with the
    checkpoint of least validation loss.

    Args:
        splits: molecules with neighbour lists within ``model.cutoff``.
        folder: an existing folder.

    Returns:
        What is written to ``metrics.json``; nothing in the processes of devices other than the first.
    """
    check_species(splits)
    with session(run), working_in(folder):
        data = FrameDataModule(splits, fit.batch_size, run.num_workers, run.seed)
        statistics = collect_property_statistics(splits.train, learned.values(splits.train), learned.readout)
        module = new_property_module(learned.column, learned.readout, model, fit, statistics, run.dtype)
        about = {"data": splits.name, "target": learned.name}
        fitted = fit_module(module, data, folder, about, model, fit, run)
        if fitted is None:
            return {}
        best, facts = fitted
        validation, test = (predicted_values(best, loader) for loader in data.predict_dataloader())
        return report(learned, folder, facts, splits, validation, test)


def predicted_values(module: PropertyModule, loader: DataLoader) -> np.ndarray:
    """The property (molecules,) that ``module`` gives, float64 in the data's unit, on the device of its weights."""
    with torch.no_grad():
        return torch.cat([module.predict_step(batch.to(module.device))[NAME] for batch in loader]).numpy()


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
    species = torch.cat([molecule.z for molecule in splits.train]).unique()

    def terms(molecules: Sequence[Data]) -> np.ndarray:
        numbers = torch.cat([molecule.z for molecule in molecules]).numpy()
        atoms = composition(numbers, np.array([molecule.num_nodes for molecule in molecules]), species)
        return np.column_stack([atoms, np.ones(len(atoms))])

    fit, *_ = np.linalg.lstsq(terms(splits.train), learned.values(splits.train).numpy(), rcond=None)
    return terms(splits.test) @ fit


def report(
    learned: Property, folder: Path, facts: dict, splits: Splits, validation: np.ndarray, test: np.ndarray
) -> dict:
    """Writes ``metrics.json``, plots and report, prints the errors of the predictions ``validation`` and ``test``."""
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
    log = folder / "metrics.csv"
    epochs, mae = read_log(log, ERROR_COLUMN)
    errors = {f"{learned.name} ({learned.unit})": (epochs, learned.factor * mae)}
    learning_curve(folder / "learning_curve.png", log, errors, title)
    write_report(folder, property_report(folder, metrics, splits, test, computed, QM9.unit(learned.name)))
    say(error_lines(metrics, folder))
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
    mae = property_errors(learned, predicted, computed)["mae"]
    quantity = f"{learned.name} ({QM9.unit(learned.name)})"
    draw_parity(parity, quantity, computed, predicted, f"MAE {mae:.3g} {learned.unit}")
    histogram.hist(learned.factor * (predicted - computed), bins=60, color=DATA_COLOR)
    histogram.set_xlabel(f"error ({learned.unit})")
    histogram.set_ylabel("molecules")
    figure.savefig(path, dpi=150)
