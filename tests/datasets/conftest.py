"""Small files in the published layouts, written by the tests themselves."""

import numpy as np
import pytest
from torch_geometric.datasets import md17 as pyg_md17

WATER = np.array([8, 1, 1], dtype=np.uint8)


@pytest.fixture
def arrays():
    """Six frames of three atoms under rMD17's names, kcal/mol."""
    rng = np.random.default_rng(0)
    return {
        "nuclear_charges": WATER,
        "coords": rng.normal(size=(6, 3, 3)),
        "energies": -97_000.123456789 + rng.normal(size=6),
        "forces": rng.normal(size=(6, 3, 3)),
        "old_indices": np.arange(6),
    }


@pytest.fixture
def archive(tmp_path, arrays):
    """The unpacked rMD17 archive: npz_data/ and splits/."""
    (tmp_path / "npz_data").mkdir()
    np.savez(tmp_path / "npz_data" / "rmd17_ethanol.npz", **arrays)
    (tmp_path / "splits").mkdir()
    for number in range(1, 6):
        (tmp_path / "splits" / f"index_train_{number:02}.csv").write_text("4\n0\n2\n")
        (tmp_path / "splits" / f"index_test_{number:02}.csv").write_text(f"{1 if number == 1 else 5}\n3\n")
    return tmp_path


@pytest.fixture
def no_network(monkeypatch):
    """PyG's download of MD17 fails as it does without a network, until a test says otherwise."""

    def refused(url, folder, **options):
        raise OSError(f"no network for {url}")

    monkeypatch.setattr(pyg_md17, "download_url", refused)
