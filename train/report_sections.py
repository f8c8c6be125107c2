"""What a report of a potential is made of: its errors, where they are large, what it was trained on."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ase.symbols import Symbols
from torch_geometric.data import Data

from datasets.atoms_details import DEFAULT_CONFIG_TYPE
from train.columns import elements, num_atoms
from train.error_plot import error_figure
from train.frame_errors import FrameErrors, frame_errors, largest_of
from train.html_report import Cell, Headline, Number, Section, Table, embedded_png, embedded_svg, shown
from train.label_counts import count_labels
from train.metrics import SHOWN_UNITS, UNITS, Labels

WORST = 10  # frames that are listed
PER_ATOM = "energy_mae_meV_per_atom"
# What a trivial model's error is, of each quantity.
TRIVIAL = {
    "energy": "energies of atoms alone",
    "forces": "the mean absolute component",
    "stress": "the mean absolute component",
    "energies": "energies of atoms alone",
    "charges": "the mean absolute charge",
    "dipole": "the mean absolute component",
}


def headlines(test: Mapping, baseline: Mapping, same_size: bool) -> list[Headline]:
    """The mean absolute error of each quantity, beside that of a trivial model.

    Args:
        test, baseline: results of :func:`train.metrics.errors`; a quantity that ``baseline`` lacks stands alone.
        same_size: whether all frames have as many atoms; if not, the energy is that of an atom.
    """
    found = []
    for name, unit in UNITS.items():
        mae, rmse = f"{name}_mae_{unit}", f"{name}_rmse_{unit}"
        if mae not in test:
            continue
        first, shown_unit = (mae, SHOWN_UNITS[name]) if name != "energy" or same_size else (PER_ATOM, "meV/atom")
        lines = [f"root mean square {shown(test[rmse])} {SHOWN_UNITS[name]}"]
        if name == "energy":
            lines.insert(0, f"{shown(test[PER_ATOM])} meV/atom" if same_size else f"{shown(test[mae])} meV a frame")
        if name == "stress":
            lines.insert(0, f"{shown(test['stress_mae_GPa'])} GPa")
        part = test[first] / baseline[first] if baseline.get(first) else None
        if part is not None:
            lines.append(f"{shown(100 * part)} % of {TRIVIAL[name]} ({shown(baseline[first])} {shown_unit})")
        found.append(Headline(f"{name}, mean absolute error".capitalize(), shown(test[first]), shown_unit, lines, part))
    return found


def error_table(rows: Mapping[str, Mapping], first: str = "") -> Table:
    """Mean absolute and root-mean-square errors, one line for each of ``rows``; bars compare the lines."""
    columns = {}  # of the metrics, by their title
    for name, unit in UNITS.items():
        if name == "energy":
            columns["energy MAE (meV/atom)"] = PER_ATOM
        columns[f"{name} MAE ({SHOWN_UNITS[name]})"] = f"{name}_mae_{unit}"
        columns[f"{name} RMSE ({SHOWN_UNITS[name]})"] = f"{name}_rmse_{unit}"
    columns = {title: name for title, name in columns.items() if any(name in row for row in rows.values())}
    counted = any("frames" in row for row in rows.values())
    cells: list[list[Cell]] = []
    for label, row in rows.items():
        count: list[Cell] = [Number(str(row.get("frames", "")))] if counted else []
        cells.append([label, *count, *(Number(shown(row[name]) if name in row else "") for name in columns.values())])
    return Table([first, *(["frames"] if counted else []), *columns], cells)


def force_bars(species: Mapping[str, Mapping]) -> Table:
    """Force errors on the atoms of each element."""
    mae, rmse = (f"forces_{error}_{UNITS['forces']}" for error in ("mae", "rmse"))
    largest = max(row[mae] for row in species.values()) or 1.0
    rows: list[list[Cell]] = [
        [symbol, Number(shown(row[mae]), min(1.0, row[mae] / largest)), Number(shown(row[rmse]))]
        for symbol, row in species.items()
    ]
    unit = SHOWN_UNITS["forces"]
    return Table(["element", f"forces MAE ({unit})", f"forces RMSE ({unit})"], rows)


def group_sections(test: Mapping) -> list[Section]:
    """Errors by element, by config_type and by head, where there are several."""
    found = []
    if len(test.get("species", {})) > 1:
        found.append(Section("By element", tables=[force_bars(test["species"])]))
    if test.get("config_types"):
        text = "config_type is the name that a frame has in its file."
        found.append(Section("By config_type", text, tables=[error_table(test["config_types"], "config_type")]))
    if test.get("heads"):
        found.append(Section("By head", "Each level of theory.", tables=[error_table(test["heads"], "head")]))
    return found


def distribution_section(predicted: Labels, computed: Labels) -> list[Section]:
    figure = error_figure(predicted, computed)
    text = "Predicted less computed, on a logarithmic scale. Errors beyond the axes are in the outermost bins."
    return [] if figure is None else [Section("Distribution of errors", text, [embedded_svg(figure)])]


def worst_section(frames: Sequence[Data], predicted: Labels, computed: Labels) -> list[Section]:
    """The frames with the largest errors of the force on an atom, of the energy, of charges and of the dipole."""
    errors = frame_errors(predicted, computed)
    tables = []
    ranked = {
        "By the force on an atom": errors.largest_force,
        "By the energy": errors.energy,
        "By the charges": errors.charges,
        "By the dipole": errors.dipole,
    }
    for title, by in ranked.items():
        if worst := largest_of(by, WORST):
            tables.append(worst_table(title, worst, frames, errors, computed.heads))
    text = "Look here for wrong reference values, and for structures that the training frames have too few of."
    return [Section("Worst frames", text, tables=tables)] if tables else []


def worst_table(
    title: str, worst: Sequence[int], frames: Sequence[Data], errors: FrameErrors, heads: np.ndarray | None
) -> Table:
    columns = {
        "largest force error (meV/Å)": errors.largest_force,
        "forces MAE (meV/Å)": errors.forces,
        "energy error (meV/atom)": errors.energy,
        "stress MAE (meV/Å³)": errors.stress,
        "charges MAE (me)": errors.charges,
        "dipole error (me Å)": errors.dipole,
    }
    columns = {name: values for name, values in columns.items() if not np.isnan(values).all()}
    rows: list[list[Cell]] = []
    for i in worst:
        numbers = [Number("" if np.isnan(values[i]) else shown(values[i])) for values in columns.values()]
        rows.append([*described(frames[i], i), *([] if heads is None else [str(heads[i])]), *numbers])
    return Table(["frame", "config_type", "formula", *([] if heads is None else ["head"]), *columns], rows, title)


def described(frame: Data, number: int) -> list[Cell]:
    """Where the frame comes from, its config_type and its formula."""
    place, config_type = frame.get("place", f"frame {number}"), frame.get("config_type", DEFAULT_CONFIG_TYPE)
    return [place, config_type, Symbols(frame.z.numpy()).get_chemical_formula()]


def data_table(parts: Mapping[str, Sequence[Data]]) -> Table:
    """How many frames and atoms, which labels and elements each of ``parts`` holds."""
    labelled = count_labels(parts)
    names = list(dict.fromkeys(name for counts in labelled.values() for name in counts))
    rows: list[list[Cell]] = []
    for part, frames in parts.items():
        atoms = int(num_atoms(frames).sum())
        counts = [Number(f"{labelled[part][name]:,}") for name in names]
        symbols = ", ".join(Symbols(elements(frames)))
        rows.append([part, Number(f"{len(frames):,}"), Number(f"{atoms:,}"), *counts, symbols])
    return Table(["part", "frames", "atoms", *(f"frames with {name}" for name in names), "elements"], rows)


def facts_table(facts: Mapping[str, object]) -> Table:
    return Table([], [[name, str(value)] for name, value in facts.items()])


def error_sections(
    folder: Path,
    test: Mapping,
    rows: Mapping[str, Mapping],
    frames: Sequence[Data],
    predicted: Labels,
    computed: Labels,
) -> list[Section]:
    """All that there is to say of the errors ``test`` of ``frames``, whose parity plot lies in ``folder``."""
    return [
        Section("Predicted against computed", pictures=embedded_png(folder / "parity.png")),
        Section("Errors", tables=[error_table(rows)]),
        *group_sections(test),
        *distribution_section(predicted, computed),
        *worst_section(frames, predicted, computed),
    ]


def same_size(frames: Sequence[Data]) -> bool:
    """Whether all have as many atoms."""
    return len(np.unique(num_atoms(frames))) == 1
