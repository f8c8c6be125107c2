"""A report as one HTML file, which a browser shows without a network: its pictures are in it, scripts are none."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from train.outputs import written_whole

REPORT = "report.html"
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Number:
    """A number in a table; ``part``, 0 to 1, draws a bar of this length below it."""

    text: str
    part: float | None = None


@dataclass(frozen=True)
class Link:
    """A name that leads to another file, by its path from the report."""

    text: str
    address: str


Cell = str | Number | Link


@dataclass(frozen=True)
class Headline:
    """An error that the reader sees first.

    Args:
        name: what it is an error of.
        value, unit: the error itself.
        lines: what else there is to say of it.
        part: the error as a part of that of a trivial model; None if it is not known.
    """

    name: str
    value: str
    unit: str
    lines: Sequence[str] = ()
    part: float | None = None


@dataclass(frozen=True)
class Table:
    """Rows of as many cells as there are ``columns``."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str = ""


@dataclass(frozen=True)
class Section:
    """A heading with sentences, pictures (data URIs) and tables below it, in this order."""

    title: str
    text: str = ""
    pictures: Sequence[str] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Report:
    """What a reader learns of a model.

    Args:
        title: what was trained, or on what it was tested.
        summary: one sentence.
        headlines: errors, the first things seen.
        sections: the rest, in order.
        options: all options as YAML, folded.
    """

    title: str
    summary: str
    headlines: Sequence[Headline]
    sections: Sequence[Section] = field(default_factory=list)
    options: str = ""


def write_report(folder: Path, report: Report) -> None:
    """Writes ``report.html`` into ``folder``. All text is escaped: names in files are shown, not obeyed."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template(REPORT).render(report=report)
    with written_whole(folder / REPORT) as unfinished:
        unfinished.write_text(page, encoding="utf-8", errors="replace")  # of names that are no text


def embedded_svg(figure: Figure) -> str:
    """A figure as a data URI."""
    content = io.BytesIO()
    figure.savefig(content, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(content.getvalue()).decode()}"


def embedded_png(*files: Path) -> list[str]:
    """Those of ``files`` that were written, as data URIs."""
    return [f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}" for file in files if file.exists()]


def shown(value: float) -> str:
    """A number with three digits that count, without an exponent."""
    if not math.isfinite(value):
        return "no number"
    if value == 0:
        return "0"
    digits = min(6, max(0, 2 - math.floor(math.log10(abs(value)))))
    return f"{value:,.{digits}f}"
