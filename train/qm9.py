"""A property of small organic molecules: QM9, or the 5,000 of its molecules that come with the project."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from datasets import QM9, QM9Sample
from datasets.qm9 import USUAL_TRAIN, USUAL_VALIDATION
from pyg_cgconv import RadiusGraph
from train.data import Splits, embedded_counts, numbered, with_neighbors
from train.options import FitOptions, ModelOptions, OptimiserOptions, RunOptions, require_positive
from train.qm9_run import Property, train_property
from train.run import open_run_folder

DEFAULT_PRESET = "small"

Target = Literal["mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "U0", "U", "H", "G", "Cv"]


@dataclass(frozen=True)
class QM9Options:
    """Data: which property of which molecules.

    Args:
        target: mu (dipole moment, D), alpha (polarizability, a0^3), homo, lumo, gap (orbital energies, eV), r2
            (electronic spatial extent, a0^2), zpve (zero-point energy, eV), U0, U, H, G (internal energy at 0 K and at
            298.15 K, enthalpy, free energy, eV) or Cv (heat capacity, cal/mol/K).
        root: folder of gdb9.sdf, gdb9.sdf.csv and uncharacterized.txt, or where to download them if the package
            qm9pack is not installed (default: the embedded molecules).
        cache: folder that keeps molecules with their neighbour lists for the next run, 0.7 GB for a cutoff of 5
            Angstrom; num_workers processes make them, two minutes for one (default: the folder cache in root).
        split_seed: of the random split.
        train_size: training molecules (default: 110000; of the 5,000 embedded molecules 4000).
        val_size: validation molecules (default: 10000; of the embedded molecules 500).
        test_size: test molecules (default: all others; of the embedded molecules 500).
    """

    target: Target = "U0"
    root: Path | None = None
    cache: Path | None = None
    split_seed: int = 0
    train_size: int | None = None
    val_size: int | None = None
    test_size: int | None = None

    def __post_init__(self):
        require_positive(self, "train_size", "val_size", "test_size")
        if self.root is None and self.cache is not None:
            raise ValueError(
                f"cache={str(self.cache)!r}: neighbour lists of the embedded molecules take seconds and are not kept; "
                "give --root, or leave it out"
            )


@dataclass(frozen=True)
class PropertyFitOptions(OptimiserOptions):
    """Fit: what is minimised and how.

    Args:
        loss: mse, mean squared errors; or huber, which grows only linearly beyond huber_delta, as mean absolute errors.
        huber_delta: in units of the spread that the molecules' composition leaves unexplained.
    """

    loss: Literal["mse", "huber"] = "huber"
    huber_delta: float = 0.1

    def __post_init__(self):
        self.fit_options()

    def fit_options(self) -> FitOptions:
        """The same for the training loop. Raises ValueError for values that cannot be used."""
        return FitOptions(**asdict(self))


OPTIONS = (QM9Options, ModelOptions, PropertyFitOptions, RunOptions)


def run(data: QM9Options, model: ModelOptions, fit: PropertyFitOptions, run: RunOptions, *, config: str) -> dict:
    """Reads the molecules, trains, and returns what is written to ``metrics.json``."""
    splits = read_splits(data, model.cutoff, run.num_workers)
    folder = open_run_folder(run, "qm9", data.target, config)
    return train_property(Property.of_qm9(data.target), splits, folder, model, fit.fit_options(), run)


def read_splits(options: QM9Options, cutoff: float, num_workers: int = 0) -> Splits:
    """The chosen molecules with their neighbour lists, which ``num_workers`` processes make for all of QM9."""
    if options.root is None:
        dataset, name = QM9Sample(), "QM9 (5,000 embedded molecules)"
    else:
        cache = options.cache or options.root / "cache"
        dataset = QM9(options.root, pre_transform=RadiusGraph(cutoff), cache=cache, num_workers=num_workers)
        name = f"QM9 ({dataset.source})"
    parts = dataset.random_split(*molecule_counts(options, len(dataset)), seed=options.split_seed)
    chosen = [list(numbered(dataset, part)) for part in parts]
    return Splits(name, *(chosen if options.root else [with_neighbors(part, cutoff) for part in chosen]))


def molecule_counts(options: QM9Options, available: int) -> tuple[int, int, int]:
    """Sizes of training, validation and test, the default wherever none is given.

    Raises:
        ValueError: there are not that many molecules.
    """
    if options.root is None:
        train, validation, test = embedded_counts(available)
    else:
        train, validation, test = USUAL_TRAIN, USUAL_VALIDATION, None
    train, validation = options.train_size or train, options.val_size or validation
    test = options.test_size or test or available - train - validation
    if train + validation + max(test, 1) > available:
        raise ValueError(
            f"train_size={train}, val_size={validation} and test_size={max(test, 1)}: there are {available} molecules, "
            "ask for fewer"
        )
    return train, validation, test
