"""What can be chosen in a run, grouped as ``--help`` shows it. A field is a command-line option and a line of YAML."""

import re
from dataclasses import dataclass, field
from importlib.util import find_spec
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
        parity: features of both parities of each angular momentum, not only that of the spherical harmonics; energies
            have a use for them from four layers on.
        products: products of each atom's messages with each other, as in MACE: smaller errors, slower steps.
        radial_species: radial networks know the element of the neighbour: smaller errors, about as fast.
        num_radial: Bessel functions of the distance.
        radial_hidden: widths of the hidden layers of the radial networks.
        cutoff_power: exponent of the polynomial that makes everything smooth at the cutoff.
        zbl: atoms repel each other at short distances as nuclei do (Ziegler, Biersack, Littmark 1985), up to the sum of
            their covalent radii, whatever is learned; the model learns the rest.
        backend: of the convolution; auto takes the fused kernels of the device, reference plain PyTorch.
    """

    cutoff: float = 5.0
    channels: int = 64
    lmax: int = 2
    layers: int = 3
    parity: bool = False
    products: bool = False
    radial_species: bool = False
    num_radial: int = 8
    radial_hidden: tuple[int, ...] = (64, 64)
    cutoff_power: int = 6
    zbl: bool = False
    backend: Literal["auto", "cuda", "cpu", "reference"] = "auto"


@dataclass(frozen=True)
class OptimiserOptions:
    """Optimiser: how the loss is minimised, whatever it is made of.

    Args:
        batch_size: frames that a device takes at a time.
        accumulate: batches of each device that make an optimiser step. A step sees batch_size x accumulate x devices x
            nodes frames.
        optimizer: soap, Adam along the directions in which gradients vary; or adam (AMSGrad), which needs
            several times as many steps for the same errors.
        lr: highest learning rate: what a step changes weights by, at most, in units of their initial size.
        schedule: of the learning rate. cosine falls to zero at max_epochs or max_time, whichever comes first; plateau
            falls when the validation loss stalls; constant stays.
        warmup_steps: steps over which the learning rate rises to lr.
        plateau_factor: factor on the learning rate at a plateau.
        plateau_patience: epochs without improvement that make a plateau.
        gradient_clip: largest norm of the gradient; 0 switches clipping off.
        ema_decay: decay per step of the moving average of the weights, which is what is validated, tested and kept;
            0 switches averaging off.
        patience: epochs without improvement of the validation loss after which the training ends; 0 for never.
        max_epochs: passes over the training frames.
        max_time: time limit of the training, DD:HH:MM:SS, all of its sessions together.
    """

    batch_size: int = 5
    accumulate: int = 1
    optimizer: Literal["soap", "adam"] = "soap"
    lr: float = 0.03
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    warmup_steps: int = 100
    plateau_factor: float = 0.8
    plateau_patience: int = 50
    gradient_clip: float = 10.0
    ema_decay: float = 0.99
    patience: int = 0
    max_epochs: int = 100
    max_time: str | None = None

    def __post_init__(self):
        require_positive(self, "batch_size", "accumulate", "lr", "max_epochs", "plateau_factor")
        require_at_least_zero(self, "warmup_steps", "plateau_patience", "gradient_clip", "patience")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(
                f"ema_decay={self.ema_decay}: expected a number from 0 (no averaging) to below 1, such as 0.99"
            )
        if self.max_time is not None and not MAX_TIME_FORMAT.fullmatch(self.max_time):
            raise ValueError(f"max_time={self.max_time!r}: expected DD:HH:MM:SS, such as 00:00:04:00 for four minutes")


@dataclass(frozen=True)
class FitOptions(OptimiserOptions):
    """Fit: what is minimised and how.

    Args:
        energy_weight: weight of the error of the energy per atom, in units of the rms force times Angstrom.
        forces_weight: weight of the error of the forces, in units of the rms force (zero forces have a squared error of
            1).
        stress_weight: weight of the error of the stress, as virial per atom in the units of the energy.
        energies_weight: weight of the error of energies of atoms, in the units of the energy.
        charges_weight: weight of the error of charges of atoms, in units of their root mean square.
        dipole_weight: weight of the error of dipoles, in units of the root mean square of their components.
        loss: mse, mean squared errors; or huber, which grows only linearly beyond huber_delta, so that a few bad
            reference values do little harm.
        huber_delta: in units of the rms force.
        stage_two_start: part of the training, 0 to 1, after which the energy weight is stage_two_energy_weight; 1 for
            no second stage. Validation losses have the weights of the second stage throughout.
        stage_two_energy_weight: energy weight of the second stage, in which energies are refined.
        atom_energies: energy of an isolated atom of each element in eV, such as {H: -13.6, O: -2041.8}, elements that
            do not occur included or not. It goes before isolated atoms in the files (default: of isolated atoms in the
            files, and for other elements fitted to the training energies by least squares). With heads, a table by
            head, such as {pbe: {H: -13.6}, r2scan: {H: -13.7}}.
    """

    energy_weight: float = 10.0
    forces_weight: float = 1.0
    stress_weight: float = 10.0
    energies_weight: float = 1.0
    charges_weight: float = 1.0
    dipole_weight: float = 1.0
    loss: Literal["mse", "huber"] = "mse"
    huber_delta: float = 0.01
    stage_two_start: float = 1.0
    stage_two_energy_weight: float = 100.0
    atom_energies: dict[str, float] | dict[str, dict[str, float]] | None = None

    def __post_init__(self):
        super().__post_init__()
        require_positive(self, "huber_delta")
        require_at_least_zero(self, "energy_weight", "forces_weight", "stress_weight", "stage_two_energy_weight")
        require_at_least_zero(self, "energies_weight", "charges_weight", "dipole_weight")
        if not 0 <= self.stage_two_start <= 1:
            raise ValueError(
                f"stage_two_start={self.stage_two_start}: expected a part of the training, 0 to 1, such as 0.75"
            )


@dataclass(frozen=True)
class TuningOptions:
    """Fine-tuning: a trained potential to start from, instead of random weights.

    Args:
        init: a run folder, its potential.pt, or a checkpoint such as best.ckpt, whose averaged weights are taken.
            Options of the model are those of this potential, and lr is lower by default. Elements that it does not know
            get weights of their own.
        init_atom_energies: where energies of isolated atoms come from that are neither given nor in the files. data
            fits them to the training energies less what the potential knows of bonds, because levels of theory differ
            in them; potential keeps those that it has.
        init_head: head of this potential, if it has several, that a training without heads starts from, and each head
            of a training that it does not have (default: its first).
        freeze: what is not trained, a name such as embedding or several such as [embedding, "blocks.0.*"]: parameters
            or modules of the potential; * stands for any characters.
    """

    init: Path | None = None
    init_atom_energies: Literal["data", "potential"] = "data"
    init_head: str | None = None
    freeze: str | list[str] = field(default_factory=list)

    def __post_init__(self):
        if isinstance(self.freeze, str):
            object.__setattr__(self, "freeze", [self.freeze])
        if self.freeze and self.init is None:
            raise ValueError(f"freeze={self.freeze}: random weights would stay random; name what was trained by init")
        if self.init_head is not None and self.init is None:
            raise ValueError(f"init_head={self.init_head!r}: there is no potential, name one by init")
        if self.init_atom_energies == "potential" and self.init is None:
            raise ValueError("init_atom_energies='potential': there is no potential, name one by init")


@dataclass(frozen=True)
class RunOptions:
    """Run: where and how it runs.

    Args:
        run_dir: folder for the results (default: runs/<task>-<name>-<time>).
        resume: folder of an earlier run to go on with, from its last checkpoint and with its options. Give more
            max_epochs or max_time to go on with a run that ended; a cosine schedule then is that of the longer run.
            Options that would change what is fitted are refused.
        seed: of the initial weights and the order of batches.
        dtype: floating-point type of the model; energies are kept in float64 until their reference is subtracted.
        matmul_precision: of float32 matrix products on a GPU. highest is exact; high uses TF32 where there is any,
            which is faster and keeps 10 bits of the mantissa; medium uses bfloat16.
        device: auto takes a GPU if there is one.
        devices: GPUs of each node, or processes on a CPU; each takes batch_size frames at a time.
        nodes: machines, started by torchrun or SLURM as PyTorch Lightning finds them.
        capture: run optimiser steps as CUDA graphs, which saves the launches that small batches of small molecules wait
            for. The training frames then lie on the GPU. auto does it on one GPU, with the fused kernels, without
            accumulation.
        threads: of the CPU; 0 leaves the number to torch. Small molecules in small batches are fastest with one.
        num_workers: processes that assemble batches and look for neighbours in files; 0 does both in this process.
        tensorboard: write logs for TensorBoard beside the CSV file.
        wandb: send logs to Weights & Biases, as a run with the name of the folder, or, with the environment variable
            WANDB_MODE=offline, write them into the folder.
        wandb_project: the project there (default: pyg_cgconv).
        progress: show a progress bar in a terminal, else a line now and then; log.txt has a line for each epoch anyway.
    """

    run_dir: Path | None = None
    resume: Path | None = None
    seed: int = 0
    dtype: Literal["float32", "float64"] = "float32"
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = 1
    nodes: int = 1
    capture: bool | Literal["auto"] = "auto"
    threads: int = 0
    num_workers: int = 0
    tensorboard: bool = False
    wandb: bool = False
    wandb_project: str | None = None
    progress: bool = True

    def __post_init__(self):
        require_positive(self, "devices", "nodes")
        require_at_least_zero(self, "threads", "num_workers", "seed")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                "device='cuda', but torch finds no CUDA GPU: choose --device cpu or install a CUDA build of torch"
            )
        if self.accelerator == "gpu" and self.devices > torch.cuda.device_count():
            raise ValueError(f"devices={self.devices}: torch finds {torch.cuda.device_count()} CUDA GPUs")
        if self.capture is True and self.accelerator != "gpu":
            raise ValueError("capture=True: CUDA graphs need a GPU, and none is used; choose --capture auto")
        for package in ("tensorboard", "wandb"):
            if getattr(self, package) and find_spec(package) is None:
                raise ValueError(f"{package}=True, but the package is not installed: pip install {package}")
        if self.wandb_project is not None and not self.wandb:
            raise ValueError(f"wandb_project={self.wandb_project!r}: nothing is sent there, give --wandb true, too")

    @property
    def accelerator(self) -> str:
        """Lightning's name of the device."""
        gpu = self.device == "cuda" or (self.device == "auto" and torch.cuda.is_available())
        return "gpu" if gpu else "cpu"


def require_positive(options, *names: str) -> None:
    """Of values that are given: None stands for a default."""
    for name in names:
        if getattr(options, name) is not None and not getattr(options, name) > 0:
            raise ValueError(f"{name}={getattr(options, name)}: expected a number above 0")


def require_at_least_zero(options, *names: str) -> None:
    for name in names:
        if not getattr(options, name) >= 0:
            raise ValueError(f"{name}={getattr(options, name)}: expected 0 or more")
