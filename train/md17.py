"""Energies and forces of one molecule: MD17, rMD17, or the ethanol frames that come with the project."""

from dataclasses import dataclass
from pathlib import Path

import torch

from train.data import Splits, with_neighbors
from train.options import FitOptions, ModelOptions, RunOptions
from train.run import create_run_folder, train

DEFAULT_PRESET = "small"


@dataclass(frozen=True)
class MD17Options:
    """Data: which frames.

    Args:
        root: folder with published MD17 or rMD17 files (default: the embedded ethanol frames).
        molecule: name of the molecule as published.
        revised: rMD17 rather than MD17, with root.
        split: published rMD17 split, 1 to 5; 0 draws a random split by seed.
        train_size: training frames (default: 800 embedded, 950 published).
        val_size: validation frames (default: 100 embedded, 50 published).
        test_size: test frames (default: 100 embedded, 1000 published).
    """

    root: Path | None = None
    molecule: str = "ethanol"
    revised: bool = True
    split: int = 1
    train_size: int | None = None
    val_size: int | None = None
    test_size: int | None = None


OPTIONS = (MD17Options, ModelOptions, FitOptions, RunOptions)


def run(data: MD17Options, model: ModelOptions, fit: FitOptions, run: RunOptions, *, config: str) -> dict:
    import numpy as np
    from torch_geometric.data import Data

    d = np.load(data.root / f"npz_data/rmd17_{data.molecule}.npz")

    def get(name):
        return np.loadtxt(data.root / f"splits/index_{name}_01.csv", dtype=int)

    def frames(ix):
        c = 0.0433641
        return with_neighbors(
            [
                Data(
                    z=torch.tensor(d["nuclear_charges"]).long(),
                    pos=torch.tensor(x),
                    energy=torch.tensor([e * c], dtype=torch.float64),
                    forces=torch.tensor(f * c),
                )
                for x, e, f in zip(d["coords"][ix], d["energies"][ix], d["forces"][ix])
            ],
            model.cutoff,
        )

    tr, te = get("train"), get("test")
    splits = Splits("rMD17 ethanol", frames(tr[:950]), frames(tr[950:]), frames(te))
    folder = create_run_folder(run.run_dir, "md17", data.molecule)
    (folder / "config.yaml").write_text(config)
    return train(splits, folder, model, fit, run)
