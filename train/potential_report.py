"""The reports of a potential: of its training, of a committee's, and of ``python -m train evaluate``."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch_geometric.data import Data

from train.data import Splits, labels
from train.html_report import REPORT, Cell, Link, Number, Report, Section, Table, embedded_png, shown
from train.metrics import Labels
from train.progress import clock
from train.report import trivial_model
from train.report_sections import data_table, error_sections, facts_table, headlines, same_size
from train.trained import CONFIG

LEARNING_CURVE = "learning_curve.png"


def training_report(folder: Path, metrics: Mapping, splits: Splits, predicted: Labels) -> Report:
    """The report of a training, whose plots and ``config.yaml`` lie in ``folder``.

    Args:
        metrics: what is written to ``metrics.json``.
        predicted: what the potential gives for the test frames.
    """
    computed, baseline = labels(splits.test, splits.heads), metrics["baseline"]
    rows = {"test frames": metrics["test"], "validation frames": metrics["validation"]}
    rows |= {"old frames": metrics["replay"]} if "replay" in metrics else {}
    rows |= {trivial_model(baseline): baseline}
    return Report(
        title=f"Potential of {splits.name}",
        summary=(
            f"Errors of {len(splits.test):,} test frames that were not trained on. "
            f"Trained on {len(splits.train):,} frames: {effort(metrics)}."
        ),
        headlines=headlines(metrics["test"], baseline, same_size(splits.test)),
        sections=[
            *error_sections(folder, metrics["test"], rows, splits.test, predicted, computed),
            Section("Learning curve", pictures=embedded_png(folder / LEARNING_CURVE)),
            Section("What was trained", tables=[data_table(splits.parts()), facts_table(facts(metrics))]),
        ],
        options=options_of(folder),
    )


def effort(metrics: Mapping) -> str:
    return (
        f"{metrics['epochs']:,} epochs, {metrics['steps']:,} steps in {clock(metrics['seconds'])} on "
        f"{metrics['device']}"
    )


def facts(metrics: Mapping) -> dict[str, object]:
    """What was trained on what, with which versions."""
    return {
        "data": metrics["data"],
        "parameters trained": f"{metrics['parameters']:,}",
        "dtype": metrics["dtype"],
        "effort": effort(metrics),
        **metrics["versions"],
    }


def evaluation_report(
    folder: Path, metrics: Mapping, frames: Sequence[Data], predicted: Labels, computed: Labels
) -> Report:
    """The report of ``python -m train evaluate``, whose plot lies in ``folder``.

    Args:
        metrics: what is written to ``metrics.json``.
        frames: those that were computed.
        predicted: what the potential gives for them.
        computed: their labels.
    """
    test = metrics["errors"]
    known = {"model": metrics["model"], "data": metrics["data"], "dtype": metrics["dtype"], **metrics["versions"]}
    return Report(
        title=f"{metrics['model']} on {metrics['data']}",
        summary=f"Errors of {len(frames):,} frames.",
        headlines=headlines(test, {}, same_size(frames)),
        sections=[
            *error_sections(folder, test, {"all frames": test}, frames, predicted, computed),
            Section("What was compared", tables=[data_table({"frames": frames}), facts_table(known)]),
        ],
    )


def committee_report(folder: Path, metrics: Mapping, splits: Splits, predicted: Labels) -> Report:
    """The report of a committee; those of its members lie in their folders.

    Args:
        metrics: what is written to ``metrics.json``.
        predicted: the mean of the members' predictions of the test frames.
    """
    computed, test, spread = labels(splits.test, splits.heads), metrics["test"], metrics["spread"]
    rows = {"mean of all": test} | {member["folder"]: member["test"] for member in metrics["members"]}
    members: list[list[Cell]] = [
        [Link(member["folder"], f"{member['folder']}/{REPORT}"), Number(str(member["seed"])), clock(member["seconds"])]
        for member in metrics["members"]
    ]
    told = {name.replace("_", " "): shown(value) for name, value in spread.items()}
    return Report(
        title=f"Committee of {metrics['committee']} potentials of {splits.name}",
        summary=f"Errors of their mean on {len(splits.test):,} test frames that were not trained on.",
        headlines=headlines(test, metrics["baseline"], same_size(splits.test)),
        sections=[
            Section("Members", tables=[Table(["member", "seed", "time"], members)]),
            *error_sections(folder, test, rows, splits.test, predicted, computed),
            *([Section("Spread and error of the forces on atoms", tables=[facts_table(told)])] if told else []),
            Section("What was trained", tables=[data_table(splits.parts()), facts_table(metrics["versions"])]),
        ],
        options=options_of(folder),
    )


def options_of(folder: Path) -> str:
    config = folder / CONFIG
    return config.read_text() if config.exists() else ""
