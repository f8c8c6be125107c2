from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from train.dynamics import CrystalLogRow, LogRow
from train.dynamics_plot import energy_plot


@pytest.fixture
def log():
    rows = [LogRow(i, 0.1 * i, -5.0 + 0.01 * i, -6.0, 1.0, 290.0 + i) for i in range(5)]
    return SimpleNamespace(rows=rows, column=lambda name: np.array([getattr(row, name) for row in rows]))


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """The figure that was written last."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: figures.append(figure))
    return figures


def test_constant_energy_shows_the_change_of_the_total_energy(tmp_path, log, drawn):
    energy_plot(tmp_path / "energy.png", log, "title")
    (line,) = drawn[0].axes[1].lines
    np.testing.assert_allclose(line.get_ydata(), [0.0, 10.0, 20.0, 30.0, 40.0], atol=1e-9)


def test_constant_temperature_shows_it_with_that_of_the_thermostat(tmp_path, log, drawn):
    energy_plot(tmp_path / "energy.png", log, "title", 300.0)
    temperature, target = drawn[0].axes[1].lines
    np.testing.assert_allclose(temperature.get_ydata(), [290.0, 291.0, 292.0, 293.0, 294.0])
    assert set(target.get_ydata()) == {300.0}
    assert drawn[0].axes[1].get_ylabel() == "temperature (K)"


@pytest.mark.slow
def test_crystals_show_pressure_and_volume(tmp_path, drawn):
    rows = [CrystalLogRow(i, 0.1 * i, -5.0, -6.0, 1.0, 290.0 + i, 0.5 * i, 100.0 - i) for i in range(5)]
    log = SimpleNamespace(rows=rows, column=lambda name: np.array([getattr(row, name) for row in rows]))
    energy_plot(tmp_path / "energy.png", log, "title", 300.0, 1.5)
    pressure, target = drawn[0].axes[2].lines
    np.testing.assert_allclose(pressure.get_ydata(), [0.0, 0.5, 1.0, 1.5, 2.0])
    assert set(target.get_ydata()) == {1.5}
    (volume,) = drawn[0].axes[3].lines
    np.testing.assert_allclose(volume.get_ydata(), [100.0, 99.0, 98.0, 97.0, 96.0])
    assert [axes.get_ylabel() for axes in drawn[0].axes[2:]] == ["pressure (GPa)", "volume (Å³)"]
    energy_plot(tmp_path / "energy.png", log, "title")
    assert len(drawn[1].axes[2].lines) == 1
