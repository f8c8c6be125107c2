"""A molecule whose energies and forces are known in closed form, so that training tests need no file and no seconds."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms
from torch_geometric.data import Data

from pyg_cgconv import Potential
from train.data import Splits, with_neighbors
from train.options import FitOptions, ModelOptions, RunOptions
from train.run import train

CUTOFF = 4.0
NUMBERS = np.array([8, 6, 1, 1, 1])
GEOMETRY = np.array([[0.0, 0.0, 0.0], [1.2, 0.0, 0.0], [1.8, 0.9, 0.1], [1.7, -0.9, 0.0], [-0.4, 0.2, 0.9]])
ATOM_ENERGIES = {1: -13.6, 6: -1030.1, 8: -2042.0}
SPRING = 12.0  # eV/Angstrom^2
PLOTS = {
    "run": ["parity_plot", "learning_curve", "training_report", "write_report"],
    "qm9_run": ["parity_plot", "learning_curve", "property_report", "write_report"],
    "committee": ["parity_plot", "committee_report", "write_report"],
    "comparison": ["parity_plot", "evaluation_report", "write_report"],
    "md": ["energy_plot"],
}


def springs(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energies (frames,) and forces (frames, atoms, 3) of springs between all pairs of atoms."""
    rest = np.linalg.norm(GEOMETRY[:, None] - GEOMETRY[None], axis=-1)
    vectors = positions[:, :, None] - positions[:, None]
    lengths = np.linalg.norm(vectors, axis=-1) + np.eye(len(NUMBERS))
    stretch = (lengths - rest) * (1 - np.eye(len(NUMBERS)))
    energy = 0.25 * SPRING * np.square(stretch).sum(axis=(1, 2)) + sum(ATOM_ENERGIES[z] for z in NUMBERS.tolist())
    forces = -SPRING * (stretch / lengths)[..., None] * vectors
    return energy, forces.sum(axis=2)


def spring_frames(count: int, seed: int = 0) -> list[Data]:
    noise = np.random.default_rng(seed).normal(scale=0.08, size=(count, *GEOMETRY.shape))
    positions = GEOMETRY + noise
    energies, forces = springs(positions)
    return [
        Data(
            z=torch.from_numpy(NUMBERS),
            pos=torch.from_numpy(position),
            energy=torch.tensor([energy], dtype=torch.float64),
            forces=torch.from_numpy(force),
        )
        for position, energy, force in zip(positions, energies, forces, strict=True)
    ]


def spring_atoms(count: int, seed: int = 0) -> list[Atoms]:
    """The same frames as :func:`spring_frames` without labels, as ASE has them."""
    return [Atoms(NUMBERS, frame.pos.numpy()) for frame in spring_frames(count, seed)]


def start_of_dynamics(folder: Path, **options) -> Path:
    """The folder with ``model.pt``, a potential of random weights that binds atoms without a training, and structures:
    ``molecule.xyz``, ``crystal.xyz``, and ``clamped.xyz``, a molecule with an atom that is held fixed."""
    torch.manual_seed(0)
    size = dict(channels=4, lmax=1, layers=1, radial_hidden=(8,), avg_num_neighbors=6.0)
    Potential([1, 6, 8, 29], 3.5, **size, **options).save(folder / "model.pt")
    crystal, clamped = bulk("Cu", cubic=True), Atoms(NUMBERS, GEOMETRY)
    crystal.rattle(0.05, seed=0)
    clamped.set_constraint(FixAtoms([1]))
    for name, atoms in {"molecule": Atoms(NUMBERS, GEOMETRY), "crystal": crystal, "clamped": clamped}.items():
        ase.io.write(folder / f"{name}.xyz", atoms)
    return folder


@contextmanager
def plots_left_out(*modules: str) -> Iterator[None]:
    """Plots and reports take most of the time of so short a training: none are made by these modules, or by any."""
    with pytest.MonkeyPatch.context() as patch:
        for module in modules or PLOTS:
            for plot in PLOTS[module]:
                patch.setattr(f"train.{module}.{plot}", lambda *arguments: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Five atoms keep no second thread busy, and threads that wait for work slow the one that has it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def splits() -> Splits:
    frames = with_neighbors(spring_frames(56), CUTOFF)
    return Splits("springs", train=frames[:40], validation=frames[40:48], test=frames[48:])


@pytest.fixture(scope="session")
def model() -> ModelOptions:
    """The irreps that most tests have, so that their kernels are compiled once."""
    return ModelOptions(cutoff=CUTOFF, channels=4, lmax=1, layers=1, radial_hidden=(8,))


@pytest.fixture(scope="session")
def fit() -> FitOptions:
    return FitOptions(batch_size=4, max_epochs=3, warmup_steps=2, ema_decay=0.5)


@pytest.fixture(scope="session")
def run() -> RunOptions:
    return RunOptions(device="cpu", progress=False)


@pytest.fixture(scope="session")
def trained(tmp_path_factory, one_thread, splits, model, fit, run):
    """The folder of a short training, for commands on trained models; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("trained")
    with plots_left_out():
        train(splits, folder, model, replace(fit, max_epochs=6, lr=0.05), run)
    return folder


@pytest.fixture
def no_plots():
    with plots_left_out():
        yield
