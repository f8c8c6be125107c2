"""The command line: ``python -m train <task> [options]``; a YAML file given with ``--config`` takes the same options.

A value comes from the first of these that has it: options after ``--config``, its file, the preset, the option class.
``--resume`` reads the ``config.yaml`` of the run to go on with. A file that names a task serves no other one.
"""

import sys
from collections.abc import Sequence

from jsonargparse import Namespace

from train.commands import COMMANDS, command_options, command_parser
from train.committee import is_committee
from train.fine_tuning import check_model
from train.lock import alone_in
from train.md_state import with_resumed_config as with_resumed_dynamics
from train.options import ModelOptions, OptimiserOptions
from train.parser import Parser
from train.preset_choice import AUTO
from train.resume import check_end, check_resumed, read_last
from train.run_log import listening, say
from train.tasks import (
    TASKS,
    automatic_preset,
    check_config,
    chosen_init,
    chosen_preset,
    early_options,
    task_options,
    task_parser,
    with_resumed_config,
)
from train.trained import CONFIG


def subcommand_parser(name: str, arguments: Sequence[str]) -> Parser:
    if name in COMMANDS:
        return command_parser(name)
    preset = chosen_preset(arguments, TASKS[name].DEFAULT_PRESET)
    return task_parser(name, preset, chosen_init(arguments))


def parse(arguments: Sequence[str]) -> tuple[str, list, str]:
    """The task, one instance of each of its option classes, and the whole configuration as YAML."""
    arguments = list(arguments)
    if arguments[:1] == ["md"]:
        arguments = ["md", *with_resumed_dynamics(arguments[1:])]
    if arguments[:1] and arguments[0] in TASKS:
        arguments = with_resumed_config(arguments)
        config = early_options(arguments[1:]).config
        if config is not None and config.is_file():
            check_config(config, arguments[0])
    parser = Parser(prog="python -m train", description="Fit an equivariant potential to molecules.")
    tasks = parser.add_subcommands(dest="task")
    for name, module in (TASKS | COMMANDS).items():
        # The others are only listed: to collect options that nobody gave would take longer than all else here.
        subcommand = subcommand_parser(name, arguments) if name in arguments[:1] else Parser()
        tasks.add_subcommand(name, subcommand, help=(module.__doc__ or name).splitlines()[0])
    task = (chosen := parser.parse_args(arguments)).task
    values: Namespace = chosen[task]
    if task in COMMANDS:
        return task, command_options(task, values), ""
    options = task_options(task, values)
    if values.preset == AUTO:
        preset, reason = automatic_preset(task, values)
        say(f"preset {preset}: {reason}")
        return parse([*arguments, "--preset", preset])
    if values.resume is not None:
        before = task_parser(task, values.preset).parse_path(values.resume / CONFIG)
        check_resumed(task_options(task, before), options)
        fit = next(group for group in options if isinstance(group, OptimiserOptions))
        if not is_committee(values.resume):  # of which each member is checked when its turn comes
            with alone_in(values.resume):
                check_end(read_last(values.resume), fit)
    elif (init := values.get("init")) is not None:
        check_model(next(group for group in options if isinstance(group, ModelOptions)), init)
    config = values.clone()
    config.resume = None
    return task, options, task_parser(task, values.preset).dump(config)


def main(arguments: Sequence[str] | None = None) -> dict:
    """Runs a task and returns its metrics. Raises ValueError for values that cannot be used."""
    with listening():
        task, options, config = parse(sys.argv[1:] if arguments is None else arguments)
        if task in COMMANDS:
            return COMMANDS[task].run(*options)
        return TASKS[task].run(*options, config=config)
