"""A trained potential, from whatever a run leaves behind, and where it is computed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
import yaml

from pyg_cgconv.potential import Potential
from train.checkpoints import BEST, read_checkpoint
from train.options import require_at_least_zero

POTENTIAL = "potential.pt"
CONFIG = "config.yaml"
CHECKPOINT_SUFFIX = ".ckpt"
PREFIX = "potential."  # of the potential's weights in a checkpoint


@dataclass(frozen=True)
class ModelFile:
    """Model: what was trained.

    Args:
        model: a run folder, its potential.pt, a checkpoint such as best.ckpt (of which the averaged weights are taken),
            or an exported file.
        head: the level of theory of a potential that has several (default: its first).
    """

    model: Path
    head: str | None = None

    def load(self, **overrides) -> Potential:
        """The potential of the head, see :func:`load_trained`."""
        return with_chosen_head(load_trained(self.model, **overrides), self.head)


@dataclass(frozen=True)
class ModelFiles:
    """Model: what was trained; several models make a committee.

    Args:
        model: one or more, each as ModelFile has it.
        head: the level of theory of potentials that have several (default: their first).
    """

    MODEL_HELP: ClassVar[str] = (
        "one or more models, each a run folder, its potential.pt, a checkpoint such as best.ckpt (of which the "
        "averaged weights are taken), or an exported file"
    )

    model: Sequence[Path]
    head: str | None = None

    def load(self, compute: "ComputeOptions") -> list[Potential]:
        """The potentials of the head, on the device where they are to compute."""
        return self.load_with_head(compute)[0]

    def load_with_head(self, compute: "ComputeOptions") -> tuple[list[Potential], str | None]:
        """These, and the name of their head; None if the first has no heads."""
        whole = [load_trained(model, **compute.overrides) for model in self.model]
        head = chosen_head(whole[0], self.head)  # of all of them, whatever their order of heads
        return [potential.with_head(head).to(compute.torch_device) for potential in whole], head


@dataclass(frozen=True)
class ComputeOptions:
    """Compute: where and how precisely.

    Args:
        device: cpu, cuda, cuda:1 ...; auto takes a GPU if there is one.
        dtype: floating-point type of the model (default: that of the training).
        backend: of the convolution; auto takes the fused kernels of the device, reference plain PyTorch (default: that
            of the training).
        threads: of the CPU; 0 leaves the number to torch. Small molecules are fastest with one.
    """

    device: str = "auto"
    dtype: Literal["float32", "float64"] | None = None
    backend: Literal["auto", "cuda", "cpu", "reference"] | None = None
    threads: int = 0

    def __post_init__(self):
        require_at_least_zero(self, "threads")
        if self.device != "auto":
            try:
                torch.empty(0, device=self.device)
            except (RuntimeError, AssertionError) as error:  # torch's, for unknown names and absent devices
                raise ValueError(
                    f"device={self.device!r} cannot be used here ({str(error).splitlines()[0]}): choose --device cpu, "
                    "or install a build of torch for it"
                ) from error

    @property
    def torch_device(self) -> torch.device:
        if self.device != "auto":
            return torch.device(self.device)
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def overrides(self) -> dict[str, str]:
        """Hyperparameters of the potential that are not to be those of the training."""
        given = {"dtype": self.dtype, "backend": self.backend}
        return {name: value for name, value in given.items() if value is not None}

    def use_threads(self) -> None:
        if self.threads:
            torch.set_num_threads(self.threads)


def model_file(model: Path, option: str = "model") -> Path:
    """The file that holds the weights: ``model`` itself, or one in the run folder ``model``.

    Raises:
        FileNotFoundError: there is no such file, or no model in the folder.
    """
    if not model.exists():
        raise FileNotFoundError(f"{option}={str(model)!r}: no such file or folder")
    if not model.is_dir():
        return model
    for name in (POTENTIAL, BEST):  # a run that is not over yet has only checkpoints
        if (model / name).exists():
            return model / name
    if members := [*model.glob(f"member-*/{POTENTIAL}"), *model.glob(f"member-*/{BEST}")]:
        raise FileNotFoundError(
            f"{option}={str(model)!r} is the folder of a committee: name its members, such as {min(members).parent}"
        )
    raise FileNotFoundError(
        f"{option}={str(model)!r} holds neither {POTENTIAL} nor {BEST}: name the folder of a run, or the file itself"
    )


def load_trained(model: Path, option: str = "model", **overrides) -> Potential:
    """The potential of a run folder, of a checkpoint or of a file that :meth:`Potential.save` wrote.

    A checkpoint's averaged weights are taken. Nothing in a file is executed.

    Args:
        model: the folder or the file.
        option: the name under which it was given, for messages.
        overrides: hyperparameters of the potential that replace those of the training, such as ``dtype``.

    Returns:
        The potential on the CPU, in evaluation mode.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is of something else, or cut short.
    """
    file = model_file(model, option)
    if file.suffix == CHECKPOINT_SUFFIX:
        return _from_checkpoint(file, option, overrides)
    try:
        return Potential.load(file, **overrides)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from error


def with_chosen_head(potential: Potential, head: str | None) -> Potential:
    """``potential`` with its ``head`` alone; see :func:`chosen_head`.

    Raises:
        ValueError: there is no such head.
    """
    return potential.with_head(chosen_head(potential, head))


def chosen_head(potential: Potential, head: str | None) -> str | None:
    """``head``, or, if none is named, the first of ``potential``; says which one that is if there are several."""
    known = potential.hyperparameters["heads"]
    if head is None and known and len(known) > 1:
        print(f"head {known[0]}, of {', '.join(known)}: --head takes another one", flush=True)
    return known[0] if head is None and known else head


def run_folder(model: Path) -> Path:
    """The run folder that ``model`` is or lies in.

    Raises:
        ValueError: it is in none.
    """
    folder = model_file(model).parent
    if not (folder / CONFIG).exists():
        raise ValueError(
            f"model={str(model)!r} lies in no run folder, whose {CONFIG} would tell its test frames: give --data FILE"
        )
    return folder


def written_options(config: Path) -> dict:
    """The options in the YAML file ``config`` by name; ``task`` says whose they are in the file of a run.

    Raises:
        ValueError: it is no such file.
    """
    try:
        options = yaml.safe_load(config.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"config={str(config)!r} is no YAML: {error}") from error
    if not isinstance(options, dict | None):
        raise ValueError(f"config={str(config)!r}: expected lines such as `lr: 0.01`, got {options!r}")
    return options or {}


def training_record(model: Path) -> dict | None:
    """What the run wrote of itself in ``metrics.json``: its data, its errors, its versions. None if it is not there."""
    file = model_file(model)
    record = file.parent / "metrics.json"
    of_a_run = file.name == POTENTIAL or file.suffix == CHECKPOINT_SUFFIX  # other files may lie anywhere
    return json.loads(record.read_text()) if of_a_run and record.exists() else None


def _from_checkpoint(file: Path, option: str, overrides: dict) -> Potential:
    checkpoint = read_checkpoint(option, file)
    known = {"hyper_parameters", "state_dict"} <= checkpoint.keys()
    arguments = checkpoint["hyper_parameters"].get("potential") if known else None
    if arguments is None or not all(name.startswith(PREFIX) for name in checkpoint["state_dict"]):
        raise ValueError(
            f"{option}={str(file)!r} is not the checkpoint of a potential: expected one that `python -m train` wrote "
            "in training on energies and forces"
        )
    potential = Potential(**{**arguments, **overrides})
    potential.load_state_dict({name.removeprefix(PREFIX): w for name, w in checkpoint["state_dict"].items()})
    return potential.eval()
