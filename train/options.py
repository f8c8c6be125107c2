"""What can be chosen in a run, grouped as ``--help`` shows it. A field is a command-line option and a line of YAML."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

MAX_TIME_FORMAT = re.compile(r"\d+:[0-2]\d:[0-5]\d:[0-5]\d")


@dataclass(frozen=True)
class ModelOptions:
    """Model: the size of the potential.

    Args:
        cutoff: Angstrom; atoms nearer than this are neighbours.
        channels: features of each symmetry type on every atom.
        lmax: highest angular momentum of the features and of the spherical harmonics of the edges.
        layers: interaction blocks; each lets an atom see one cutoff further.
        parity: features of both parities of each angular momentum, not only that of the spherical harmonics.
        num_radial: Bessel functions of the distance.
        radial_hidden: widths of the hidden layers of the radial networks.
        cutoff_power: exponent of the polynomial that makes everything smooth at the cutoff.
        backend: of the convolution; auto takes the fused kernels of the device, reference plain PyTorch.
    """

    cutoff: float = 5.0
    channels: int = 64
    lmax: int = 2
    layers: int = 3
    parity: bool = False
    num_radial: int = 8
    radial_hidden: tuple[int, ...] = (64, 64)
    cutoff_power: int = 6
    backend: Literal["auto", "cuda", "cpu", "reference"] = "auto"


@dataclass(frozen=True)
class FitOptions:
    """Fit: what is minimised and how.

    Args:
        energy_weight: weight of the mean squared error of the energy per atom, in units of rms force times Angstrom.
        forces_weight: weight of the mean squared error of the forces, in units of rms force (zero forces have loss 1).
        batch_size: frames per optimiser step.
        lr: highest learning rate of Adam (AMSGrad).
        schedule: of the learning rate. cosine falls to zero at max_epochs or max_time, whichever comes first; plateau
            falls when the validation loss stalls; constant stays.
        warmup_steps: steps over which the learning rate rises to lr.
        plateau_factor: factor on the learning rate at a plateau.
        plateau_patience: epochs without improvement that make a plateau.
        gradient_clip: largest norm of the gradient; 0 switches clipping off.
        ema_decay: decay per step of the moving average of the weights, which is what is validated, tested and kept;
            0 switches averaging off.
        max_epochs: passes over the training frames.
        max_time: time limit of the training, DD:HH:MM:SS.
    """

    energy_weight: float = 10.0
    forces_weight: float = 1.0
    batch_size: int = 5
    lr: float = 0.01
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    warmup_steps: int = 100
    plateau_factor: float = 0.8
    plateau_patience: int = 50
    gradient_clip: float = 10.0
    ema_decay: float = 0.99
    max_epochs: int = 100
    max_time: str | None = None

    def __post_init__(self):
        require_positive(self, "batch_size", "lr", "max_epochs", "plateau_factor")
        require_at_least_zero(
            self, "energy_weight", "forces_weight", "warmup_steps", "plateau_patience", "gradient_clip"
        )
        if self.energy_weight == self.forces_weight == 0:
            raise ValueError(
                "energy_weight and forces_weight are both 0, which leaves nothing to fit: raise one of them"
            )
        if not 0 <= self.ema_decay < 1:
            raise ValueError(
                f"ema_decay={self.ema_decay}: expected a number from 0 (no averaging) to below 1, such as 0.99"
            )
        if self.max_time is not None and not MAX_TIME_FORMAT.fullmatch(self.max_time):
            raise ValueError(f"max_time={self.max_time!r}: expected DD:HH:MM:SS, such as 00:00:04:00 for four minutes")


@dataclass(frozen=True)
class RunOptions:
    """Run: where and how it runs.

    Args:
        run_dir: folder for the results (default: runs/<task>-<name>-<time>).
        seed: of the initial weights, the order of batches and random splits.
        dtype: floating-point type of the model; energies are kept in float64 until their reference is subtracted.
        device: auto takes a GPU if there is one.
        threads: of the CPU; 0 leaves the number to torch. Small molecules in small batches are fastest with one.
        num_workers: processes that assemble batches; 0 assembles them in the training process.
        progress: show a progress bar.
    """

    run_dir: Path | None = None
    seed: int = 0
    dtype: Literal["float32", "float64"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 0
    num_workers: int = 0
    progress: bool = True

    def __post_init__(self):
        require_at_least_zero(self, "threads", "num_workers", "seed")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                "device='cuda', but torch finds no CUDA GPU: choose --device cpu or install a CUDA build of torch"
            )

    @property
    def accelerator(self) -> str:
        """Lightning's name of the device."""
        gpu = self.device == "cuda" or (self.device == "auto" and torch.cuda.is_available())
        return "gpu" if gpu else "cpu"


def require_positive(options, *names: str) -> None:
    for name in names:
        if not getattr(options, name) > 0:
            raise ValueError(f"{name}={getattr(options, name)}: expected a number above 0")


def require_at_least_zero(options, *names: str) -> None:
    for name in names:
        if not getattr(options, name) >= 0:
            raise ValueError(f"{name}={getattr(options, name)}: expected 0 or more")
