"""The codes that are compared: how each is started, with the settings that its documentation recommends."""

import shlex
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import yaml

from train.side_by_side.frames import FrameFiles
from train.side_by_side.options import ComparisonOptions

ROOT = Path(__file__).parents[2]
# MACE's README ends 1,200 of 1,500 epochs before it begins its second stage.
STAGE_ONE_OF_MACE = 0.8
# The first one compiles; the others tell how long one takes.
TRIAL_EPOCHS_OF_MACE = 3


@dataclass(frozen=True)
class Code(ABC):
    """A code in its environment.

    Args:
        python: words that start its Python.
        further: options that its user added.
    """

    python: tuple[str, ...]
    further: tuple[str, ...]

    name = ""
    needed = ""  # a module that its training imports, and with it all that it needs
    checkout = False  # whether it is found in the current folder
    has_time_limit = True

    @abstractmethod
    def command(self, files: FrameFiles, folder: Path, seed: int, threads: int) -> list[str]:
        """Words behind ``python`` that train in the new ``folder``, but for the end of the training."""

    @abstractmethod
    def trial_end(self) -> list[str]:
        """Options of a training of one epoch or some."""

    @abstractmethod
    def end(self, seconds: float, trial: dict) -> list[str]:
        """Options of a training that ends after ``seconds``; ``trial`` is what came of an earlier one."""

    @abstractmethod
    def model(self, folder: Path) -> Path:
        """The file of the model that the training left in ``folder``."""


class PygCGConv(Code):
    """The preset of one molecule on a CPU, of ``md17``, on the files."""

    name = "pyg_cgconv"
    needed = "train.cli"
    checkout = True

    def command(self, files: FrameFiles, folder: Path, seed: int, threads: int) -> list[str]:
        return [
            *("-m", "train", "frames", "--config", f"{ROOT / 'train/presets/md17-small.yaml'}"),
            *("--train_file", f"{files.train}", "--val_file", f"{files.validation}", "--test_file", f"{files.test}"),
            *("--run_dir", f"{folder}", "--seed", f"{seed}", "--threads", f"{threads}", "--device", "cpu"),
            *("--progress", "false"),
        ]

    def trial_end(self) -> list[str]:
        return ["--max_epochs", "1"]

    def end(self, seconds: float, trial: dict) -> list[str]:
        return ["--max_epochs", "1000000", "--max_time", lightning_time(seconds)]

    def model(self, folder: Path) -> Path:
        return folder / "potential.pt"


class Mace(Code):
    """The README of mace 0.3: messages of l = 1, 5 Angstrom, ten frames a batch, averaged weights, a second stage.

    ``float32`` is what it recommends for speed. There is no limit of time, so epochs are counted instead.
    """

    name = "mace"
    needed = "mace.cli.run_train"
    has_time_limit = False

    def command(self, files: FrameFiles, folder: Path, seed: int, threads: int) -> list[str]:
        places = [f"--{place}_dir={folder}" for place in ("work", "log", "model", "checkpoints", "results")]
        return [
            *("-m", "mace.cli.run_train", "--name=mace", *places, f"--seed={seed}", "--device=cpu"),
            *(f"--train_file={files.train}", f"--valid_file={files.validation}", f"--test_file={files.test}"),
            *("--energy_key=energy", "--forces_key=forces", "--E0s=average", "--default_dtype=float32"),
            *("--model=MACE", "--num_channels=24", "--max_L=1", "--r_max=5.0", "--batch_size=10"),
            *("--ema", "--ema_decay=0.99", "--amsgrad", "--plot=False"),
        ]

    def trial_end(self) -> list[str]:
        return [f"--max_num_epochs={TRIAL_EPOCHS_OF_MACE}", *second_stage(TRIAL_EPOCHS_OF_MACE)]

    def end(self, seconds: float, trial: dict) -> list[str]:
        each = trial["later_epochs_seconds"] / (trial["epochs"] - 1)
        epochs = max(2, round(1 + (seconds - trial["first_epoch_seconds"]) / each))
        return [f"--max_num_epochs={epochs}", *second_stage(epochs)]

    def model(self, folder: Path) -> Path:
        return folder / "mace_stagetwo.model"


class Nequip(Code):
    """The tutorial of nequip, see ``nequip.yaml``."""

    name = "nequip"
    needed = "nequip.scripts.train"

    def command(self, files: FrameFiles, folder: Path, seed: int, threads: int) -> list[str]:
        config = yaml.safe_load(Path(__file__).with_name("nequip.yaml").read_text())
        config["hydra"]["run"] = {"dir": str(folder)}
        config["data"] |= {"seed": seed, "train_file_path": str(files.train), "val_file_path": str(files.validation)}
        config["training_module"]["model"] |= {"seed": seed, "type_names": list(files.symbols)}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        return ["-m", "nequip.scripts.train", "--config-path", f"{folder}", "--config-name", "config"]

    def trial_end(self) -> list[str]:
        return ["+trainer.max_epochs=1"]

    def end(self, seconds: float, trial: dict) -> list[str]:
        return ["+trainer.max_epochs=-1", f"+trainer.max_time='{lightning_time(seconds)}'"]

    def model(self, folder: Path) -> Path:
        return folder / "best.ckpt"


CODES: tuple[type[Code], ...] = (PygCGConv, Mace, Nequip)


def chosen_codes(options: ComparisonOptions) -> list[Code]:
    """All codes, as the options start them."""
    return [
        code(
            words_of(getattr(options, code.name) or sys.executable),
            tuple(shlex.split(getattr(options, f"{code.name}_options"))),
        )
        for code in CODES
    ]


def words_of(command: str) -> tuple[str, ...]:
    """The words of a shell's line; a file among them by its whole name, because trainings run in another folder."""
    words = shlex.split(command)
    return tuple(str(Path.cwd() / word) if "/" in word and Path(word).is_file() else word for word in words)


def second_stage(epochs: int) -> list[str]:
    return ["--stage_two", f"--start_stage_two={min(epochs - 1, round(STAGE_ONE_OF_MACE * epochs))}"]


def lightning_time(seconds: float) -> str:
    """DD:HH:MM:SS."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours // 24:02}:{hours % 24:02}:{minute:02}:{second:02}"
