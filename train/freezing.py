"""Parameters that a fine-tuning leaves as they are, by patterns of their names."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from torch import nn


def names_of_frozen(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """The parameters of ``model`` that one of the ``patterns`` names, or a module in which they are.

    Args:
        patterns: such as ``embedding*`` or ``blocks.0``; ``*`` stands for any characters, dots included.

    Raises:
        ValueError: a pattern names nothing, or no parameter is left to train.
    """
    parameters = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(_names(pattern, name) for name in parameters):
            raise ValueError(
                f"freeze: {pattern!r} names no parameter and no module; there are {', '.join(_shown(parameters))}"
            )
    frozen = [name for name in parameters if any(_names(pattern, name) for pattern in patterns)]
    if len(frozen) == len(parameters):
        raise ValueError(f"freeze={list(patterns)} names all parameters: nothing is left to train, name fewer")
    return frozen


def freeze(model: nn.Module, names: Sequence[str]) -> None:
    for name in names:
        model.get_parameter(name).requires_grad_(False)


def _names(pattern: str, parameter: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in _ancestors(parameter))


def _ancestors(parameter: str) -> Iterator[str]:
    """The name of the parameter, then those of the modules that hold it, from the inside."""
    name = parameter
    while name:
        yield name
        name = name.rpartition(".")[0]


def _shown(parameters: Sequence[str]) -> list[str]:
    """The modules that hold parameters, each once: lists of weights by the name of the list."""
    modules = (name.rpartition(".")[0] or name for name in parameters)
    return list(dict.fromkeys(name.removesuffix(".weights") for name in modules))
