"""``python -m datasets describe``."""

import json

import numpy as np
import pytest
from ase.build import molecule
from ase.io import write
from matplotlib.image import imread

from datasets import describe
from datasets.__main__ import main


@pytest.fixture
def file(tmp_path):
    """Two molecules of water with labels that ASE does not know by itself."""
    frames = [molecule("H2O"), molecule("H2O")]
    for number, atoms in enumerate(frames):
        atoms.info["my_energy"] = -14.0 - number
        atoms.arrays["my_forces"] = np.zeros((3, 3))
    write(tmp_path / "water.xyz", frames)
    return str(tmp_path / "water.xyz")


def test_files_as_json(file, capsys):
    describe.main([file, file, "--energy_key", "my_energy", "--forces_key", "my_forces", "--json", "--cutoff", "1.2"])
    found = json.loads(capsys.readouterr().out)
    assert found["structures"] == 4
    assert found["elements"] == {"H": 8, "O": 4}
    assert found["quantities"]["energy / atoms"]["min"] == -5.0
    assert found["quantities"]["neighbours within 1.2 A"]["mean"] == pytest.approx(4 / 3)  # two bonds of three atoms


@pytest.mark.slow
def test_a_set_with_a_plot(tmp_path, capsys):
    describe.main(["QM9Sample", "--plot", str(tmp_path / "sample.png")])
    assert "130" not in capsys.readouterr().out.splitlines()[0]
    image = imread(tmp_path / "sample.png")
    assert image.shape[0] > 1000  # five rows of histograms
    assert image[..., :3].std() > 0.05


def test_rmd17(archive, capsys):
    describe.main(["MD17", "--root", str(archive)])
    assert "18, 3 in a structure" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.xyz"], r"source: 'nothing.xyz' is no file, and no data set: those are EthanolPBE"),
        (["EthanolPBE", "QM9Sample"], "source: EthanolPBE is described by itself"),
        (["EthanolPBE", "--root", "x"], "--root: no option of EthanolPBE, of which there are: none; leave it out"),
        (["QM9Sample", "--energy_key", "E"], "--energy_key: no option of QM9Sample"),
        (["QM9", "--original"], "--original: no option of QM9, of which there are: --root"),
        (["MD17"], "--root: missing, which MD17 needs"),
        (["EthanolPBE", "--cutoff", "0"], "cutoff: expected a positive number"),
        (["nothing.xyz", "--plot", "no/a.png"], "--plot: there is no folder 'no' for the picture; make it"),
    ],
)
def test_mistakes_are_named(arguments, message):
    """The folder of a plot first: what comes before a plot may take long."""
    with pytest.raises((ValueError, OSError), match=message):
        describe.main(arguments)


def test_a_mistake_is_one_line():
    with pytest.raises(SystemExit) as end:
        main(["describe", "nothing.xyz"])
    assert end.value.code.startswith("error: source: 'nothing.xyz' is no file")
    assert len(end.value.code.splitlines()) == 1
