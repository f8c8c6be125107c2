"""Commands on a trained model: ``python -m train <command> MODEL [options]``."""

from dataclasses import fields
from pathlib import Path
from types import ModuleType

from jsonargparse import Namespace

from train import evaluate, export, md, predict, select
from train.data_files import DataFiles
from train.parser import Parser
from train.select import PoolFiles
from train.trained import ModelFile, ModelFiles

COMMANDS: dict[str, ModuleType] = {
    "evaluate": evaluate,
    "predict": predict,
    "select": select,
    "export": export,
    "md": md,
}

# Several files by one option, which a field cannot say: the option, its field and its help.
SEVERAL: dict[type, tuple[str, str, str]] = {
    DataFiles: ("--data", "data", DataFiles.HELP),
    PoolFiles: ("--pool", "pool", PoolFiles.HELP),
    ModelFiles: ("model", "model", ModelFiles.MODEL_HELP),
}


def command_parser(command: str) -> Parser:
    """All options of a command: the model by place, the rest by name."""
    parser = Parser(
        prog=f"python -m train {command}",
        usage=f"python -m train {command} MODEL{' ...' if ModelFiles in COMMANDS[command].OPTIONS else ''} [options]",
        description=COMMANDS[command].__doc__,
    )
    parser.add_argument("--config", action="config", help="YAML file with any of the options below; give it first")
    for group in COMMANDS[command].OPTIONS:
        if group in SEVERAL:
            option, field, explained = SEVERAL[group]
            action = parser.add_argument(
                option, nargs="+", type=Path, metavar="FILE" if option.startswith("--") else "MODEL", help=explained
            )
            if option.startswith("--"):  # it may be left out, and the command says what that means
                action.default = []
            parser.add_class_arguments(group, skip={field})
        else:
            parser.add_class_arguments(group, as_positional=group is ModelFile)
    return parser


def command_options(command: str, values: Namespace) -> list:
    """One instance of each of the command's option classes.

    Raises:
        ValueError: values make no sense; they are named.
    """
    given = command_parser(command).instantiate(values)
    return [group(**{field.name: given[field.name] for field in fields(group)}) for group in COMMANDS[command].OPTIONS]
