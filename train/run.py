"""One training from frames to results, and the run folder that it fills."""

from collections.abc import Collection
from pathlib import Path

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn
from torch_geometric.loader import DataLoader

from train.checkpoints import BEST
from train.columns import num_atoms, values_of
from train.data import FrameDataModule, Splits, check_species, labels, quantities_of
from train.export import describe
from train.fine_tuning import start_from
from train.fitting import fit_module, session, working_in
from train.heads import levels_of, statistics_of
from train.html_report import write_report
from train.label_counts import count_labels, describe_labels
from train.lock import alone_in
from train.loss import QUANTITIES
from train.metrics import Labels, errors, trivial_prediction
from train.module import PotentialModule, new_module, properties_for
from train.options import FitOptions, ModelOptions, RunOptions, TuningOptions
from train.outputs import dated_folder, make_folder, writing_to, written_whole
from train.plots import learning_curve, parity_plot, validation_errors
from train.potential_report import training_report
from train.report import error_table, versions, write_json
from train.run_log import say
from train.trained import CONFIG, POTENTIAL


def open_run_folder(run: RunOptions, task: str, name: str, config: str) -> Path:
    """The folder of a new run, with ``config`` in it, or that of the run to go on with.

    Of the processes of several devices the first one makes it.

    Raises:
        ValueError: a new run would overwrite an earlier one, a live process writes in the folder, or it cannot be made
            or written.
    """
    if rank_zero_only.rank:  # type: ignore[attr-defined]  # Lightning sets it on the function
        return run.resume or run.run_dir or Path("runs")  # nothing is written by this process
    folder = run.resume or create_run_folder(run.run_dir, task, name)
    with alone_in(folder), writing_to(folder), written_whole(folder / CONFIG) as unfinished:
        unfinished.write_text(config)  # the other processes of a resumed run may be reading what it replaces
    return folder


def create_run_folder(run_dir: Path | None, task: str, name: str) -> Path:
    """A folder without an earlier run in it, :func:`train.outputs.dated_folder` unless one is named."""
    folder = run_dir or dated_folder(task, name)
    if (folder / CONFIG).exists():
        raise ValueError(
            f"run_dir={str(folder)!r} holds a run already: name another folder, remove this one, or go on with it by "
            f"--resume {folder}"
        )
    make_folder(folder)
    return folder


def train(
    splits: Splits,
    folder: Path,
    model: ModelOptions,
    fit: FitOptions,
    run: RunOptions,
    tuning: TuningOptions = TuningOptions(),  # noqa: B008  # it is frozen
) -> dict:
    """Fits a potential to ``splits.train`` and fills ``folder``: checkpoints, log, plots, report, ``metrics.json``.

    With ``run.resume`` it goes on from the last checkpoint in ``folder``. The test frames are predicted with the
    checkpoint of least validation loss. Its potential alone is written to ``potential.pt``, with the metadata that
    ``python -m train export`` gives, for :meth:`pyg_cgconv.potential.Potential.load`.

    Args:
        splits: frames with neighbour lists within ``model.cutoff``.
        folder: an existing folder.
        model, fit, run: options.
        tuning: where the weights start, if not at random.

    Returns:
        What is written to ``metrics.json``; nothing in the processes of devices other than the first.
    """
    with session(run), working_in(folder):
        return fit_and_report(splits, folder, model, fit, run, tuning)


def fit_and_report(
    splits: Splits, folder: Path, model: ModelOptions, fit: FitOptions, run: RunOptions, tuning: TuningOptions
) -> dict:
    """What :func:`train` does, within a session, in a folder that it may write in."""
    for part in splits.by_head():
        check_labels(part, fit, of=f" of {part.name}" if splits.heads else "")
    levels = levels_of(splits, fit.atom_energies)
    data = FrameDataModule(splits, fit.batch_size, run.num_workers, run.seed)
    statistics = statistics_of(levels)
    say(describe_labels(splits.parts()))
    for level in levels:
        say(level.describe(statistics.species))
    quantities = quantities_of(splits.train)
    warn_of_idle_weights(fit, quantities)
    if tuning.init is None:
        module = new_module(model, fit, statistics, run.dtype, quantities)
    else:
        start = start_from(tuning.init, tuning, model, fit, run, statistics, levels, quantities)
        module = start.module
        say(start.description)
    about = {"data": splits.name, "labels": count_labels(splits.parts())}
    fitted = fit_module(module, data, folder, about, model, fit, run)
    if fitted is None:
        return {}
    best, facts = fitted
    validation, test, *old = (predicted_labels(best, loader) for loader in data.predict_dataloader())
    metrics = report(folder, facts, splits, validation, test, *old)
    potential = best.potential.cpu()
    potential.metadata = describe(potential, folder / BEST)
    potential.save(folder / POTENTIAL)
    return metrics


def check_labels(splits: Splits, fit: FitOptions, of: str = "") -> None:
    """Raises ValueError where training frames have no energy, validation frames lack what the loss is made of, or one
    of both has elements that the training frames do not have.

    Args:
        of: the head whose frames these are, for messages.
    """
    for name, frames in {"training": splits.train, "validation": splits.validation}.items():
        if not len(frames):
            raise ValueError(f"there are no {name} frames{of}: give some, in its files or by --val_size")
    check_species(splits, of)
    learned, validated = quantities_of(splits.train), quantities_of(splits.validation)
    if "energy" in properties_for(learned) and "energy" not in learned:
        raise ValueError(
            f"energy: none of the {len(splits.train)} training frames{of} has one, from which a potential is made; "
            "give some, name them by --energy_key, or give them a weight above 0"
        )
    missing = [name for name in learned if name not in validated and getattr(fit, f"{name}_weight") > 0]
    if missing:
        raise ValueError(
            f"{' and '.join(missing)}: training frames{of} have labels, validation frames have none, so nothing would "
            "show how well they are learned; give some, or set "
            f"{' and '.join(f'{name}_weight' for name in missing)} to 0"
        )


def warn_of_idle_weights(fit: FitOptions, learned: Collection[str]) -> None:
    """Warns where a weight was chosen for a label that is not ``learned``."""
    for name in (f"{quantity}_weight" for quantity in QUANTITIES if quantity not in learned):
        if (weight := getattr(fit, name)) not in (0, getattr(FitOptions, name)):
            rank_zero_warn(
                f"{name}={weight}: it has no effect, as no training frame has such a label that is read; look at "
                "`labels` and at the names of the labels in the files"
            )


def predicted_labels(module: PotentialModule, loader: DataLoader) -> Labels:
    """What ``module`` gives for the frames of ``loader``, on the device of its weights."""
    with torch.no_grad():
        batches = [module.predict_step(batch.to(module.device)) for batch in loader]
    given = {name: torch.cat([batch[name] for batch in batches]).numpy() for name in batches[0]}
    return Labels(
        **{name: given.get(name) for name in QUANTITIES},
        num_atoms=num_atoms(loader.dataset),
        numbers=values_of(loader.dataset, "z").numpy(),
    )


def report(
    folder: Path, facts: dict, splits: Splits, validation: Labels, test: Labels, old: Labels | None = None
) -> dict:
    """Writes ``metrics.json``, plots and report of the predictions ``validation``, ``test`` and ``old``, prints errors.

    Old frames count in the validation loss, but not in these errors.
    """
    computed, validated = (labels(frames, splits.heads) for frames in (splits.test, splits.validation))
    trained = labels(splits.train, splits.heads, ["energy"])
    if old is not None:
        new = ~values_of(splits.validation, "replayed").numpy()
        validation, validated = validation.selected(new), validated.selected(new)
    metrics = facts | {
        "test": errors(test, computed),
        "validation": errors(validation, validated),
        **({} if old is None else {"replay": errors(old, labels(splits.replay))}),
        "baseline": errors(trivial_prediction(trained, computed), computed),
        "versions": versions(),
    }
    mean_force = metrics["baseline"].get("forces_mae_meV_per_A")
    if mean_force and "forces_mae_meV_per_A" in metrics["test"]:  # it is zero of perfect crystals
        metrics["test"]["forces_mae_percent"] = 100 * metrics["test"]["forces_mae_meV_per_A"] / mean_force
    write_json(folder / "metrics.json", metrics)
    title = f"{splits.name}, {len(splits.train)} training frames"
    parity_plot(folder / "parity.png", test, computed, f"{title}: {len(splits.test)} test frames")
    log = folder / "metrics.csv"
    learning_curve(folder / "learning_curve.png", log, validation_errors(log), title)
    write_report(folder, training_report(folder, metrics, splits, test))
    say(error_table(metrics, folder))
    return metrics
