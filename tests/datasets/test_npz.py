"""A file that is not what it should be is refused by name."""

import numpy as np
import pytest

from datasets.npz import Keys, read_frames

KEYS = Keys("nuclear_charges", "coords", "energies", "forces", energy_unit=2.0)


@pytest.fixture
def write(tmp_path, arrays):
    """Writes the good arrays with some replaced, and returns the file."""

    def write(**replaced):
        path = tmp_path / "frames.npz"
        np.savez(path, **{name: array for name, array in {**arrays, **replaced}.items() if array is not None})
        return path

    return write


def test_values_and_types(write, arrays):
    frames = read_frames(write(), KEYS)
    assert frames.z.dtype == np.int64
    assert frames.z.tolist() == [8, 1, 1]
    assert np.array_equal(frames.pos, arrays["coords"])
    assert np.array_equal(frames.energy, 2 * arrays["energies"])
    assert np.array_equal(frames.forces, 2 * arrays["forces"])
    assert frames.energy.dtype == frames.pos.dtype == frames.forces.dtype == np.float64


def test_column_of_energies(write, arrays):
    column = read_frames(write(energies=arrays["energies"][:, None]), KEYS)
    assert np.array_equal(column.energy, 2 * arrays["energies"])


def test_float32_is_widened_before_conversion(write, arrays):
    energies = arrays["energies"].astype(np.float32)
    assert np.array_equal(read_frames(write(energies=energies), KEYS).energy, 2 * energies.astype(np.float64))


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.npz: no such file"):
        read_frames(tmp_path / "absent.npz", KEYS)


@pytest.mark.parametrize("kept", [0, 10, 0.3, 0.9, -1])
def test_truncated_file(write, kept):
    path = write()
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(ValueError, match=r"frames\.npz: not a whole npz file.*download it again"):
        read_frames(path, KEYS)


def test_damaged_file(write):
    path = write()
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"frames\.npz: not a whole npz file"):
        read_frames(path, KEYS)


def test_file_of_another_kind(tmp_path):
    (tmp_path / "page.npz").write_text("<html>404</html>")
    with pytest.raises(ValueError, match=r"page\.npz: not a whole npz file"):
        read_frames(tmp_path / "page.npz", KEYS)
    with open(tmp_path / "single.npz", "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match=r"single\.npz: not a whole npz file \(a single array\)"):
        read_frames(tmp_path / "single.npz", KEYS)


def test_missing_array(write):
    with pytest.raises(ValueError, match=r"frames\.npz: no array 'forces' among \['nuclear_charges', .*\]: a remark$"):
        read_frames(write(forces=None), KEYS, ": a remark")


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("nuclear_charges", np.array([8.0, 1.0, 1.0])),
        ("nuclear_charges", np.array([[8, 1, 1]])),
        ("nuclear_charges", np.array([8, 1, 0])),
        ("nuclear_charges", np.array([8, 1, 119])),
        ("nuclear_charges", np.array([], dtype=int)),
        ("coords", np.zeros((6, 4, 3))),
        ("coords", np.zeros((6, 3, 2))),
        ("coords", np.zeros((0, 3, 3))),
        ("coords", np.zeros((6, 3, 3), dtype=int)),
        ("energies", np.zeros(5)),
        ("energies", np.zeros((6, 2))),
        ("energies", np.array(["a"] * 6)),
        ("forces", np.zeros((6, 9))),
        ("forces", np.zeros((5, 3, 3))),
        ("coords", np.full((6, 3, 3), np.nan)),
        ("energies", np.full(6, np.inf)),
        ("forces", np.full((6, 3, 3), -np.inf)),
    ],
)
def test_array_that_cannot_be(write, name, array):
    with pytest.raises(ValueError, match=rf"frames\.npz: array '{name}' is .*expected"):
        read_frames(write(**{name: array}), KEYS)
