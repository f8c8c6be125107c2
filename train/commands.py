"""Commands on a trained model: ``python -m train <command> MODEL [options]``."""

from dataclasses import fields
from pathlib import Path
from types import ModuleType

from jsonargparse import Namespace

from train import evaluate, export, md, predict
from train.data_files import DataFiles
from train.parser import Parser
from train.trained import ModelFile

COMMANDS: dict[str, ModuleType] = {"evaluate": evaluate, "predict": predict, "export": export, "md": md}


def command_parser(command: str) -> Parser:
    """All options of a command: the model by place, the rest by name."""
    parser = Parser(
        prog=f"python -m train {command}",
        usage=f"python -m train {command} MODEL [options]",
        description=COMMANDS[command].__doc__,
    )
    parser.add_argument("--config", action="config", help="YAML file with any of the options below; give it first")
    for group in COMMANDS[command].OPTIONS:
        if group is DataFiles:  # several files by one option, which a field cannot say
            parser.add_argument("--data", nargs="+", type=Path, default=[], metavar="FILE", help=DataFiles.DATA_HELP)
            parser.add_class_arguments(group, skip={"data"})
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
