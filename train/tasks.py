"""The tasks, and how their options are read: from the command line, YAML files, presets, and runs to go on with."""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from jsonargparse import Namespace

from train import frames, md17, qm9
from train.checkpoints import LAST
from train.committee import is_committee
from train.fine_tuning import LR, load_initial, model_options_of
from train.options import TuningOptions
from train.parser import Parser
from train.preset_choice import AUTO
from train.trained import CONFIG, written_options

TASKS = {"md17": md17, "frames": frames, "qm9": qm9}
SHOWN_FOR_AUTO = "small"  # until files were looked at
PRESET_FOLDER = Path(__file__).parent / "presets"


def preset_names(task: str) -> list[str]:
    return sorted(path.stem.removeprefix(f"{task}-") for path in PRESET_FOLDER.glob(f"{task}-*.yaml"))


def known_presets(task: str) -> list[str]:
    """What ``--preset`` takes."""
    return [*([AUTO] if TASKS[task].DEFAULT_PRESET == AUTO else []), *preset_names(task)]


def read_preset(task: str, name: str) -> dict:
    """The options that a preset sets, by name."""
    if name not in preset_names(task):
        raise ValueError(f"preset={name!r}: unknown for {task}, expected one of {', '.join(known_presets(task))}")
    return yaml.safe_load((PRESET_FOLDER / f"{task}-{name}.yaml").read_text())


def chosen_preset(arguments: Sequence[str], default: str) -> str:
    """The preset that the command line or the ``--config`` file asks for: it sets the defaults of all else."""
    given = early_options(arguments)
    if given.preset is None and given.config is not None and given.config.is_file():
        given.preset = written_options(given.config).get("preset")
    return given.preset or default


def automatic_preset(task: str, values: Namespace) -> tuple[str, str]:
    """The preset for what ``values``, the options with ``preset`` "auto", name; and why it is this one."""
    data, *_, run = task_options(task, values)
    return TASKS[task].choose_preset(data, run)


def chosen_init(arguments: Sequence[str]) -> Path | None:
    """The potential that the command line or the ``--config`` file starts from: it sets defaults before the preset.

    None for a run that goes on, which has all of its options.
    """
    given = early_options(arguments)
    if given.init is None and given.config is not None and given.config.is_file():
        written = written_options(given.config).get("init")
        given.init = None if written is None else Path(written)
    return None if given.resume is not None else given.init


def early_options(arguments: Sequence[str]) -> argparse.Namespace:
    """The options that decide what the others start from."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--preset")
    for name in ("--config", "--resume", "--init"):
        early.add_argument(name, type=Path)
    return early.parse_known_args(arguments)[0]


def with_resumed_config(arguments: Sequence[str]) -> list[str]:
    """``arguments`` of a task with the configuration of the run that they go on with as ``--config``.

    Raises:
        FileNotFoundError: the folder holds no run that can go on.
        ValueError: there is another ``--config``.
    """
    task, *rest = arguments
    given = early_options(rest)
    if given.resume is None:
        return list(arguments)
    if given.config is not None:
        raise ValueError(
            f"config={str(given.config)!r}: a resumed run has its own, give single options beside --resume"
        )
    config = given.resume / CONFIG
    needed = [config, given.resume / LAST]
    if config.is_file() and is_committee(given.resume):  # its members have checkpoints
        needed = [config]
    for file in needed:
        if not file.is_file():
            raise FileNotFoundError(f"resume={str(given.resume)!r}: there is no {file.name}, so no run that can go on")
    return [task, "--config", str(config), *rest]


def check_config(config: Path, task: str) -> None:
    """Raises ValueError where the file says that its options are those of another task."""
    written = written_options(config).get("task", task)
    if written != task:
        raise ValueError(f"config={str(config)!r} has task={written!r}: python -m train {written} takes it, not {task}")


def task_parser(task: str, preset: str, init: Path | None = None) -> Parser:
    """All options of a task, with the values of ``preset`` as defaults; those of the model as ``init`` has them."""
    if init is None or TuningOptions not in TASKS[task].OPTIONS:
        return preset_parser(task, preset)
    parser = preset_parser.__wrapped__(task, preset)  # another one, as the file may change
    parser.set_defaults({**model_options_of(load_initial(init)), "lr": LR})
    return parser


@cache
def preset_parser(task: str, preset: str) -> Parser:
    """All options of a task, with the values of ``preset`` as defaults. One is made: it takes most of a command's
    time before a training."""
    parser = Parser(
        prog=f"python -m train {task}", usage=f"python -m train {task} [options]", description=TASKS[task].__doc__
    )
    parser.add_argument(
        "--config",
        action="config",
        help="YAML file with any of the options below, such as config.yaml of a run; give it first",
    )
    parser.add_argument("--task", type=Literal[task], default=task, help="whose options these are, for config.yaml")
    known = ", ".join(known_presets(task))
    parser.add_argument("--preset", default=preset, help=f"defaults for model and fit: {known}")
    for group in TASKS[task].OPTIONS:
        parser.add_class_arguments(group)
    parser.set_defaults(read_preset(task, SHOWN_FOR_AUTO if preset == AUTO else preset))
    return parser


def parse_config(task: str, config: Path, *changes: str) -> list:
    """One instance of each of the task's option classes, as a run's configuration and then ``changes`` have them."""
    arguments = ["--config", str(config), *changes]
    parser = task_parser(task, chosen_preset(arguments, TASKS[task].DEFAULT_PRESET))
    return task_options(task, parser.parse_args(arguments))


def task_options(task: str, values: Namespace) -> list:
    """One instance of each of the task's option classes."""
    return [group(**{field.name: values[field.name] for field in fields(group)}) for group in TASKS[task].OPTIONS]
