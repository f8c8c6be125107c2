from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from train.metrics import Labels
from train.plots import learning_curve, parity_panels, parity_plot, read_log, validation_errors

LOG = """epoch,step,train/loss,val/loss,val/energy_mae_meV,val/stress_mae_meV_per_A3,lr
1,9,2.0,3.0,50.0,4.0,0.01
2,19,,1.5,40.0,3.0,0.02
"""


@pytest.fixture
def computed() -> Labels:
    random = np.random.default_rng(0)
    stress = random.normal(scale=0.01, size=(3, 3, 3))
    stress[2] = np.nan
    return Labels(np.array([-20.0, -41.0, -19.0]), random.normal(size=(8, 3)), np.array([2, 4, 2]), stress)


@pytest.fixture
def learnt(computed) -> Labels:
    stress = np.nan_to_num(computed.stress) + 0.001
    return Labels(computed.energy + 0.02, computed.forces - 0.003, computed.num_atoms, stress)


def test_every_quantity_has_a_panel_with_its_error(computed, learnt):
    panels = {name.split()[0]: (x, y, caption) for name, x, y, caption in parity_panels(learnt, computed)}
    assert list(panels) == ["energy", "force", "stress"]
    assert panels["force"][2] == "MAE 3.0 meV/Å"
    assert panels["stress"][2].startswith("MAE 1.00 meV/Å³ = 0.160 GPa")
    assert len(panels["stress"][0]) == len(panels["stress"][1]) == 18  # of the frames that have one


def test_energies_of_frames_of_different_size_are_those_of_an_atom(computed, learnt):
    name, x, y, caption = parity_panels(learnt, computed)[0]
    assert name == "energy - mean (eV/atom)"
    np.testing.assert_allclose(x - x[0], [0.0, -0.25, 0.5])
    np.testing.assert_allclose(y - x, [0.01, 0.005, 0.01])
    assert caption == "MAE 8.33 meV/atom"


def test_plots_are_images(tmp_path, computed, learnt):
    log = tmp_path / "metrics.csv"
    log.write_text(LOG)
    parity_plot(tmp_path / "parity.png", learnt, computed, "title")
    learning_curve(tmp_path / "curve.png", log, validation_errors(log), "title")
    for name in ("parity.png", "curve.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_legends_cover_no_curve(tmp_path, monkeypatch):
    log, figures = tmp_path / "metrics.csv", []
    log.write_text(LOG)
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: figures.append(figure))
    learning_curve(tmp_path / "curve.png", log, validation_errors(log), "title")
    figures[0].draw_without_rendering()
    for axes in figures[0].axes[:2]:
        assert not axes.get_legend().get_window_extent().overlaps(axes.get_window_extent())


def test_validation_errors_are_those_that_were_logged(tmp_path):
    (tmp_path / "metrics.csv").write_text(LOG)
    found = {label: values.tolist() for label, (_, values) in validation_errors(tmp_path / "metrics.csv").items()}
    assert found == {"energy (meV)": [50.0, 40.0], "stress (meV/Å³)": [4.0, 3.0]}


def test_log_is_read_where_something_was_measured(tmp_path):
    (tmp_path / "metrics.csv").write_text(LOG)
    epochs, values = read_log(tmp_path / "metrics.csv", "train/loss")
    assert (epochs.tolist(), values.tolist()) == ([1], [2.0])
    assert read_log(tmp_path / "metrics.csv", "val/stress_mae_meV_per_A3")[1].tolist() == [4.0, 3.0]
    assert read_log(tmp_path / "metrics.csv", "val/forces_mae_meV_per_A")[0].tolist() == []


def test_a_log_that_counts_epochs_from_zero_is_read_alike(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,val/loss\n0,2.0\n1,1.0\n")
    assert read_log(tmp_path / "metrics.csv", "val/loss")[0].tolist() == [1, 2]


def test_panels_have_the_labels_that_there_are(computed, learnt):
    energy, forces = computed.energy.copy(), computed.forces.copy()
    energy[1], forces[2:6] = np.nan, np.nan
    panels = parity_panels(learnt, replace(computed, energy=energy, forces=forces))
    (name, x, y, caption), (_, forces_x, forces_y, _), _ = panels
    assert (name, caption) == ("energy - mean (eV/atom)", "MAE 10.00 meV/atom")
    np.testing.assert_allclose(x, [-0.25, 0.25])
    np.testing.assert_allclose(y - x, 0.01)
    assert len(forces_x) == len(forces_y) == 12


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["energy", "forces", "stress"])
def test_a_label_that_no_frame_has_gets_no_panel(tmp_path, computed, learnt, missing):
    without = replace(computed, **{missing: np.full_like(getattr(computed, missing), np.nan)})
    names = [name.split()[0] for name, *_ in parity_panels(learnt, without)]
    assert names == [name for name in ("energy", "force", "stress") if not missing.startswith(name)]
    parity_plot(tmp_path / "parity.png", learnt, without, "title")
