"""The report of a run: what its numbers are, and that a browser needs nothing but the file."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from train.cli import main
from train.error_plot import error_figure
from train.frame_errors import frame_errors, largest_of
from train.html_report import REPORT, Headline, Report, Section, Table, shown, write_report
from train.metrics import Labels
from train.report_sections import worst_section
from train.run import train

FOREIGN = '<script>alert("x")</script> & "quoted"'


class Page(HTMLParser):
    """The text and the addresses of a page, its tables as rows of cells, and whether all elements are closed."""

    VOID = ("meta", "img")

    def __init__(self, page: str):
        super().__init__()
        self.open, self.addresses, self.rows, self.tags, self.text = [], [], [], set(), []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.text.append(text)
        if set(self.open) & {"td", "th"}:
            self.rows[-1][-1] += text.strip()


def read(folder) -> Page:
    page = Page((folder / REPORT).read_text())
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def random_labels():
    """Predictions and references of five frames of one to four atoms, some without labels."""
    random, sizes = np.random.default_rng(0), np.array([3, 1, 4, 2, 2])
    atoms = sizes.sum()
    numbers = random.choice([1, 8], atoms)
    reference, predicted = (
        Labels(
            random.normal(size=5),
            random.normal(size=(atoms, 3)),
            sizes,
            random.normal(size=(5, 3, 3)),
            numbers,
            charges=random.normal(size=atoms),
            dipole=random.normal(size=(5, 3)),
        )
        for _ in range(2)
    )
    reference.energy[1] = np.nan
    reference.forces[3] = np.nan  # the whole frame of one atom
    reference.forces[4, 0] = np.nan
    reference.stress[2] = np.nan
    reference.charges[3] = np.nan
    reference.dipole[0] = np.nan
    return predicted, reference


def test_errors_of_a_frame_are_those_of_its_labels(random_labels):
    predicted, reference = random_labels
    found, first = frame_errors(predicted, reference), 0
    for i, count in enumerate(reference.num_atoms.tolist()):
        atoms = slice(first, first := first + count)
        force = 1000 * (predicted.forces[atoms] - reference.forces[atoms])
        present = force[~np.isnan(force)]
        expected = np.abs(present).mean() if len(present) else np.nan
        np.testing.assert_allclose(found.forces[i], expected)
        whole = [np.sqrt((row**2).sum()) for row in force if not np.isnan(row).any()]
        np.testing.assert_allclose(found.largest_force[i], max(whole, default=np.nan))
        np.testing.assert_allclose(found.energy[i], 1000 * (predicted.energy[i] - reference.energy[i]) / count)
        np.testing.assert_allclose(found.stress[i], 1000 * np.abs(predicted.stress[i] - reference.stress[i]).mean())
        charges = 1000 * np.abs(predicted.charges[atoms] - reference.charges[atoms])
        np.testing.assert_allclose(found.charges[i], np.nan if i == 1 else charges.mean())
        dipole = predicted.dipole[i] - reference.dipole[i]
        np.testing.assert_allclose(found.dipole[i], 1000 * np.sqrt(dipole @ dipole))


def test_the_worst_charges_and_dipoles_are_listed(random_labels):
    predicted, reference = (
        replace(each, energy=None, forces=None, stress=None, energies=None) for each in random_labels
    )
    frames = [Data(z=torch.ones(n, dtype=torch.int64), place=f"frame {i}") for i, n in enumerate(reference.num_atoms)]
    (section,) = worst_section(frames, predicted, reference)
    found = frame_errors(predicted, reference)
    assert [table.title for table in section.tables] == ["By the charges", "By the dipole"]
    assert section.tables[0].columns[-2:] == ["charges MAE (me)", "dipole error (me Å)"]
    assert section.tables[0].rows[0][0] == f"frame {np.nanargmax(found.charges)}"
    assert section.tables[1].rows[0][0] == f"frame {np.nanargmax(found.dipole)}"
    named = replace(reference, heads=np.array(["pbe", "<b>", "pbe", "pbe", "r2scan"]))
    first = worst_section(frames, predicted, named)[0].tables[1]
    assert first.columns[3] == "head"
    assert first.rows[0][3] == named.heads[np.nanargmax(found.dipole)]


def test_the_worst_come_first_and_missing_labels_never():
    assert largest_of(np.array([1.0, np.nan, -3.0, np.inf, 2.0]), 3) == [3, 2, 4]


def test_every_error_is_in_a_histogram_of_its_element(random_labels):
    figure = error_figure(*random_labels)
    energy, forces, stress, *_ = figure.axes
    assert [text.get_text() for text in forces.get_legend().get_texts()] == ["H", "O"]
    assert "meV/atom" in energy.get_xlabel()
    assert "meV/Å³" in stress.get_xlabel()


def test_nothing_is_drawn_of_nothing(random_labels):
    predicted, reference = random_labels
    nothing = np.full_like(reference.energy, np.nan)
    absent = replace(reference, energy=nothing, forces=None, stress=None, charges=None, dipole=None)
    assert error_figure(predicted, absent) is None


def test_text_of_files_is_shown_and_not_obeyed(tmp_path):
    table = Table(["frame"], [[FOREIGN]])
    sections = [Section(FOREIGN, FOREIGN, tables=[table])]
    write_report(tmp_path, Report(FOREIGN, FOREIGN, [Headline(FOREIGN, "1", "meV", [FOREIGN])], sections, FOREIGN))
    page = read(tmp_path)
    assert "script" not in page.tags
    assert page.rows == [["frame"], [FOREIGN]]
    assert sum(FOREIGN in text for text in page.text) == 9


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234.56, "1,235"),
        (12.345, "12.3"),
        (-0.012345, "-0.0123"),
        (0.0, "0"),
        (1e-9, "0.000000"),
        (np.inf, "no number"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert shown(value) == text


@pytest.fixture(scope="module")
def reported(tmp_path_factory, splits, model, fit, run):
    """The folder of a training with its report."""
    folder = tmp_path_factory.mktemp("reported")
    train(splits, folder, model, fit, run)
    return folder


@pytest.mark.slow
def test_a_run_has_a_report_that_needs_no_other_file(reported):
    page, metrics = read(reported), json.loads((reported / "metrics.json").read_text())
    assert page.addresses
    assert all(
        address.startswith(("data:image/png;base64,", "data:image/svg+xml;base64,")) for address in page.addresses
    )
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert shown(metrics["test"]["energy_mae_meV"]) in page.text  # all frames have as many atoms
    assert shown(metrics["test"]["forces_mae_meV_per_A"]) in page.text
    assert ["parameters trained", f"{metrics['parameters']:,}"] in page.rows
    assert ["torch", metrics["versions"]["torch"]] in page.rows


@pytest.mark.slow
def test_worst_frames_are_ordered_by_their_errors(reported):
    rows = read(reported).rows
    header = next(i for i, row in enumerate(rows) if row[:3] == ["frame", "config_type", "formula"])
    worst = rows[header + 1 : header + 9]
    assert {row[2] for row in worst} == {"OCH3"} or {row[2] for row in worst} == {"CH3O"}
    errors = [float(row[3].replace(",", "")) for row in worst]
    assert errors == sorted(errors, reverse=True)


def test_an_evaluation_names_file_and_frame_of_the_worst(tmp_path, trained):
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    from .conftest import spring_atoms, spring_frames

    structures = spring_atoms(6, seed=5)
    for number, (atoms, frame) in enumerate(zip(structures, spring_frames(6, seed=5), strict=True)):
        forces = frame.forces.numpy() + (50.0 if number == 4 else 0.0)
        atoms.calc = SinglePointCalculator(atoms, energy=frame.energy.item(), forces=forces)
        atoms.info["config_type"] = "<i>wrong</i>" if number == 4 else "right"
    write(tmp_path / "some.xyz", structures)
    folder = tmp_path / "result"
    main(["evaluate", str(trained), "--data", str(tmp_path / "some.xyz"), "--device", "cpu", "--run_dir", str(folder)])
    page = read(folder)
    assert "i" in page.tags  # bars
    assert "<i>wrong</i>" in [cell for row in page.rows for cell in row]
    worst = next(page.rows[i + 1] for i, row in enumerate(page.rows) if row[:2] == ["frame", "config_type"])
    assert worst[:2] == [f"{tmp_path / 'some.xyz'}: frame 4", "<i>wrong</i>"]
    assert float(re.sub(",", "", worst[3])) > 50_000
