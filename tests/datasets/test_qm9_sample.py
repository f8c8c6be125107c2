import numpy as np
import pytest

from datasets import QM9, qm9_files
from datasets.generate_qm9_sample import draw, main
from datasets.qm9_sample import SAMPLE, read_sample, write_sample

from .qm9_molecules import write_raw


@pytest.fixture
def root(tmp_path, monkeypatch):
    for name, count in (("NUM_PUBLISHED", 3), ("NUM_UNCHARACTERIZED", 1), ("NUM_MOLECULES", 2)):
        monkeypatch.setattr(qm9_files, name, count)
    write_raw(tmp_path / "root")
    return tmp_path / "root"


def test_what_is_written_is_read_back(root, tmp_path):
    molecules = draw(QM9(root))
    write_sample(tmp_path / "sample.npz", molecules)
    again = read_sample(tmp_path / "sample.npz")
    assert sorted(again.number.tolist()) == [1, 3]
    for name in ("number", "num_atoms", "z"):
        assert np.array_equal(getattr(again, name), getattr(molecules, name))
        assert getattr(again, name).dtype == np.int64
    assert np.abs(again.pos - molecules.pos).max() < 1e-12  # the files have four decimals, too
    np.testing.assert_allclose(again.targets, molecules.targets, rtol=1e-13, atol=1e-13)


def test_command(root, tmp_path, capsys):
    main(["--root", str(root), "--output", str(tmp_path / "sample.npz")])
    assert len(read_sample(tmp_path / "sample.npz").number) == 2
    assert "sample.npz" in capsys.readouterr().out


@pytest.mark.skipif(qm9_files.find_pack() is None, reason="the package qm9pack is not installed")
def test_embedded_file_is_what_the_command_makes(tmp_path):
    main(["--output", str(tmp_path / "sample.npz")])
    with np.load(tmp_path / "sample.npz") as made, np.load(SAMPLE) as embedded:
        assert made.files == embedded.files
        assert all(np.array_equal(made[name], embedded[name]) for name in made.files)


def test_arrays_that_do_not_belong_together(root, tmp_path):
    path = tmp_path / "sample.npz"
    write_sample(path, draw(QM9(root)))
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, "positions": arrays["positions"][:, 1:]})
    with pytest.raises(ValueError, match=r"sample\.npz: arrays of shapes .*\(3, 7\).*, expected .*\(3, 8\)"):
        read_sample(path)


def test_file_cut_short(tmp_path):
    content = SAMPLE.read_bytes()
    (tmp_path / "sample.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"sample\.npz: not a whole npz file"):
        read_sample(tmp_path / "sample.npz")
