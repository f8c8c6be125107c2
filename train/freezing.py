"""Parameters that a fine-tuning leaves as they are, by patterns of their names."""

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from torch import nn

from pyg_cgconv.potential import Potential


def names_of_frozen(potential: Potential, patterns: Sequence[str]) -> list[str]:
    """The parameters of ``potential`` that one of the ``patterns`` names, or a module in which they are.

    Args:
        patterns: such as ``embedding*`` or ``blocks.0``; ``*`` stands for any characters, dots included. The readout of
            a head has two names, ``readout.1`` and, if the head is called so, ``readout.pbe``.

    Raises:
        ValueError: a pattern names nothing, or no parameter is left to train.
    """
    parameters = [name for name, _ in potential.named_parameters()]
    by_head = {name: _by_head(name, potential.hyperparameters["heads"]) for name in parameters}
    for pattern in patterns:
        if not any(_names(pattern, name, by_head[name]) for name in parameters):
            raise ValueError(
                f"freeze: {pattern!r} names no parameter and no module; there are {', '.join(_shown(by_head.values()))}"
            )
    frozen = [name for name in parameters if any(_names(pattern, name, by_head[name]) for pattern in patterns)]
    if len(frozen) == len(parameters):
        raise ValueError(f"freeze={list(patterns)} names all parameters: nothing is left to train, name fewer")
    return frozen


def freeze(model: nn.Module, names: Sequence[str]) -> None:
    for name in names:
        model.get_parameter(name).requires_grad_(False)


def _by_head(parameter: str, heads: Sequence[str] | None) -> str:
    """``parameter`` with the name of its head instead of the number."""
    module, _, rest = parameter.partition(".")
    if module != "readout" or heads is None:
        return parameter
    number, _, rest = rest.partition(".")
    return f"{module}.{heads[int(number)]}.{rest}"


def _names(pattern: str, *parameters: str) -> bool:
    """Whether it is a name of this parameter, which may have several, or of a module that holds it."""
    return any(fnmatchcase(name, pattern) for parameter in parameters for name in _ancestors(parameter))


def _ancestors(parameter: str) -> Iterator[str]:
    """The name of the parameter, then those of the modules that hold it, from the inside."""
    name = parameter
    while name:
        yield name
        name = name.rpartition(".")[0]


def _shown(parameters: Iterable[str]) -> list[str]:
    """The modules that hold parameters, each once: lists of weights by the name of the list."""
    modules = (name.rpartition(".")[0] or name for name in parameters)
    return list(dict.fromkeys(name.removesuffix(".weights") for name in modules))
