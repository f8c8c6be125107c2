"""The results of a comparison as a table in Markdown."""

from collections.abc import Sequence
from statistics import mean, stdev

COLUMNS = ("code", "parameters", "training, s", "epochs", "energy, meV", "forces, meV/A")
ERRORS = ("energy_mae_meV", "forces_mae_meV_per_A")


def markdown(report: dict) -> str:
    """A row for each code: means over the seeds and, of errors, their standard deviation; the best mean is bold."""
    by_code: dict[str, list[dict]] = {}
    for run in report["runs"]:
        by_code.setdefault(run["code"], []).append(run)
    columns = [[errors(runs, name) for runs in by_code.values()] for name in ERRORS]
    cells = zip(map(row, by_code.values()), *map(shown, columns), strict=True)
    lines = [COLUMNS, ["---"] * len(COLUMNS), *([*first, *of_errors] for first, *of_errors in cells)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def row(runs: Sequence[dict]) -> list[str]:
    first = runs[0]
    seconds, epochs = (mean(run[name] for run in runs) for name in ("seconds", "epochs"))
    return [f"{first['code']} {first['version']}", f"{first['parameters']:,}", f"{seconds:.0f}", f"{epochs:.0f}"]


def errors(runs: Sequence[dict], name: str) -> tuple[float, float | None]:
    """Mean and standard deviation, which one seed has none of."""
    values = [run["test"][name] for run in runs]
    return mean(values), stdev(values) if len(values) > 1 else None


def shown(column: Sequence[tuple[float, float | None]]) -> list[str]:
    """Errors with their deviations, the smallest one bold."""
    texts = [f"{value:.2f}" if deviation is None else f"{value:.2f} ± {deviation:.2f}" for value, deviation in column]
    best = min(value for value, _ in column)
    return [f"**{text}**" if value == best else text for text, (value, _) in zip(texts, column, strict=True)]
