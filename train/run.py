"""One training from frames to results, and the run folder that it fills."""

import time
from pathlib import Path

import lightning
import torch

from train.data import FrameDataModule, Splits, check_species, labels
from train.loop import device_name, fitting_trainer, predicting_trainer, quiet_lightning
from train.metrics import Labels, errors, trivial_prediction
from train.module import PotentialModule, new_module
from train.options import FitOptions, ModelOptions, RunOptions
from train.plots import learning_curve, parity_plot
from train.report import describe_run, error_table, versions, write_json
from train.schedule import training_timer
from train.statistics import collect_statistics


def create_run_folder(run_dir: Path | None, task: str, name: str) -> Path:
    """A folder without an earlier run in it, ``runs/<task>-<name>-<time>`` unless one is named."""
    folder = run_dir or Path("runs") / f"{task}-{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if (folder / "config.yaml").exists():
        raise ValueError(f"run_dir={str(folder)!r} holds a run already: name another folder or remove this one")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def predict(module: PotentialModule, data: FrameDataModule, run: RunOptions) -> tuple[Labels, Labels]:
    """Energies and forces that ``module`` gives for the validation and for the test frames."""
    validation, test = predicting_trainer(run).predict(module, data)
    return tuple(
        Labels(
            energy=torch.cat([batch["energy"] for batch in batches]).numpy(),
            forces=torch.cat([batch["forces"] for batch in batches]).numpy(),
            num_atoms=labels(frames).num_atoms,
        )
        for batches, frames in ((validation, data.splits.validation), (test, data.splits.test))
    )


def train(splits: Splits, folder: Path, model: ModelOptions, fit: FitOptions, run: RunOptions) -> dict:
    """Fits a new potential to ``splits.train`` and fills ``folder`` with checkpoints, log, plots and ``metrics.json``.

    The test frames are predicted with the checkpoint of least validation loss, read back from its file. Its potential
    alone is written to ``potential.pt``, for :meth:`pyg_cgconv.potential.Potential.load`.

    Args:
        splits: frames with neighbour lists within ``model.cutoff``.
        folder: an existing folder.

    Returns:
        What is written to ``metrics.json``.
    """
    check_species(splits)
    if run.threads:
        torch.set_num_threads(run.threads)
    with quiet_lightning():
        lightning.seed_everything(run.seed, workers=True, verbose=False)
        data = FrameDataModule(splits, fit.batch_size, run.num_workers)
        module = new_module(model, fit, collect_statistics(splits.train), run.dtype)
        trainer = fitting_trainer(folder, fit, run)
        facts = {
            "data": splits.name,
            "frames": splits.sizes(),
            "parameters": sum(weight.numel() for weight in module.parameters() if weight.requires_grad),
            "device": device_name(trainer),
            "dtype": run.dtype,
        }
        print(describe_run(facts, folder), flush=True)
        trainer.fit(module, data)
        facts |= {
            "seconds": training_timer(trainer).time_elapsed(),
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
        }
        best = PotentialModule.load_from_checkpoint(folder / "best.ckpt", map_location="cpu")
        best.potential.save(folder / "potential.pt")
        validation, test = predict(best, data, run)
    return report(folder, facts, splits, validation, test)


def report(folder: Path, facts: dict, splits: Splits, validation: Labels, test: Labels) -> dict:
    """Writes ``metrics.json`` and the plots, prints the errors of the predictions ``validation`` and ``test``."""
    computed = labels(splits.test)
    baseline = errors(trivial_prediction(labels(splits.train).energy, computed), computed)
    metrics = facts | {
        "test": errors(test, computed),
        "validation": errors(validation, labels(splits.validation)),
        "baseline": baseline,
        "versions": versions(),
    }
    metrics["test"]["forces_mae_percent"] = (
        100 * metrics["test"]["forces_mae_meV_per_A"] / baseline["forces_mae_meV_per_A"]
    )
    write_json(folder / "metrics.json", metrics)
    title = f"{splits.name}, {len(splits.train)} training frames"
    parity_plot(folder / "parity.png", test, computed, f"{title}: {len(splits.test)} test frames")
    learning_curve(folder / "learning_curve.png", folder / "metrics.csv", title)
    print(error_table(metrics, folder), flush=True)
    return metrics
