"""The report of a training on a property of molecules."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from train.data import Splits
from train.frame_errors import largest_of
from train.html_report import Cell, Headline, Number, Report, Section, Table, embedded_png, shown
from train.potential_report import LEARNING_CURVE, effort, facts, options_of
from train.report_sections import WORST, described, facts_table


def property_report(
    folder: Path,
    metrics: Mapping,
    splits: Splits,
    predicted: np.ndarray,
    computed: np.ndarray,
    unit: str,
) -> Report:
    """The report of a training whose plots and ``config.yaml`` lie in ``folder``.

    Args:
        metrics: what is written to ``metrics.json``.
        predicted, computed: the property (molecules,) of the test molecules.
        unit: its unit, which may be another one than that of the errors.
    """
    test, baseline, name = metrics["test"], metrics["baseline"], metrics["target"]
    part = test["mae"] / baseline["mae"] if baseline["mae"] else None
    lines = [f"root mean square {shown(test['rmse'])} {test['unit']}"]
    lines += [] if part is None else [f"{shown(100 * part)} % of composition alone ({shown(baseline['mae'])})"]
    rows = {
        "test molecules": test,
        "validation molecules": metrics["validation"],
        "least squares on composition": baseline,
    }
    errors = Table(
        ["", f"MAE ({test['unit']})", f"RMSE ({test['unit']})"],
        [[label, Number(shown(row["mae"])), Number(shown(row["rmse"]))] for label, row in rows.items()],
    )
    sizes = {f"{part} molecules": f"{count:,}" for part, count in metrics["frames"].items()}
    return Report(
        title=f"{name} of {splits.name}",
        summary=(
            f"Errors of {len(splits.test):,} test molecules that were not trained on. "
            f"Trained on {len(splits.train):,} molecules: {effort(metrics)}."
        ),
        headlines=[Headline(f"{name}, mean absolute error", shown(test["mae"]), test["unit"], lines, part)],
        sections=[
            Section("Predicted against computed", pictures=embedded_png(folder / "parity.png")),
            Section("Errors", tables=[errors]),
            Section("Worst molecules", tables=[worst_molecules(splits, predicted, computed, unit)]),
            Section("Learning curve", pictures=embedded_png(folder / LEARNING_CURVE)),
            Section("What was trained", tables=[facts_table(sizes | facts(metrics))]),
        ],
        options=options_of(folder),
    )


def worst_molecules(splits: Splits, predicted: np.ndarray, computed: np.ndarray, unit: str) -> Table:
    """The test molecules with the largest errors; they have no config_type."""
    rows: list[list[Cell]] = []
    for i in largest_of(predicted - computed, WORST):
        place, _, formula = described(splits.test[i], i)
        values = [Number(f"{value:,.3f}") for value in (computed[i], predicted[i])]
        rows.append([place, formula, *values, Number(shown(predicted[i] - computed[i]))])
    return Table(["molecule", "formula", *(f"{name} ({unit})" for name in ("computed", "predicted", "error"))], rows)
