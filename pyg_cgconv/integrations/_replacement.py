"""A module computed by another class: the module stays, its class is exchanged.

So its parameters, its state dict, hooks, device and place in the model stay as they are.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from torch import nn
from torch.jit import ScriptModule

from .._torch import NotScripted

logger = logging.getLogger("pyg_cgconv.integrations")


class Replacement(NotScripted, nn.Module):
    """What classes that replace others have in common; they derive from this class, then from that of the module.

    Attributes:
        original: The class of the modules that it replaces.
        prepared: The names of attributes that :meth:`prepare` makes. They are not pickled, but made again.
    """

    original: ClassVar[type[nn.Module]]
    prepared: ClassVar[tuple[str, ...]] = ()
    instead = (
        "export the model with torch.export, compile it with torch.compile, or undo accelerate(model) by restore(model)"
    )

    @classmethod
    def obstacle(cls, module: nn.Module) -> str:
        """Why this class cannot compute what the module does; empty if it can."""
        return ""

    def prepare(self) -> None:
        """Makes what the forward needs, from the module's own attributes."""

    def __getstate__(self) -> dict:
        state: dict = super().__getstate__()
        return {name: value for name, value in state.items() if name not in self.prepared}

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self.prepare()


class Found(NamedTuple):
    """A module that an integration looked for: its name in the model, and its replacement or why there is none."""

    name: str
    module: nn.Module
    replacement: type[Replacement] | None
    why: str = ""


@dataclass(frozen=True)
class Report:
    """What of a model runs by generated kernels.

    Attributes:
        replaced: For the name of each module that was replaced, its original class.
        left: For the name of each module that was looked at and left as it was, why.
    """

    replaced: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        counted = Counter(self.replaced.values())
        replaced = ", ".join(f"{count} {name}" for name, count in counted.items())
        left = "; ".join(f"{name} ({why})" for name, why in self.left.items())
        return f"{len(self.replaced)} modules replaced ({replaced or 'none'}); left: {left or 'none'}"


def is_original(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module has or had exactly this class."""
    return original_class(module) is kind


def original_class(module: nn.Module) -> type[nn.Module]:
    return module.original if isinstance(module, Replacement) else type(module)


def found(name: str, module: nn.Module, replacement: type[Replacement]) -> Found:
    """The module with its replacement, unless there is an obstacle."""
    why = "" if type(module) is replacement else replacement.obstacle(module)
    return Found(name, module, None if why else replacement, why)


def replace(model: nn.Module, exchanged: Callable[[nn.Module], Report], looked_for: str) -> None:
    """Replaces what is found in a model, and tells the log.

    Args:
        exchanged: replaces it, and reports.
        looked_for: what that looks for, in words.

    Raises:
        TypeError: the model is no module, or one of TorchScript.
        ValueError: there is nothing to replace.
    """
    check_model(model)
    report = exchanged(model)
    if not report.replaced:
        raise ValueError(
            f"model: {type(model).__name__} has nothing that can be replaced; looked for {looked_for}. {report}"
        )
    logger.info("%s: %s", type(model).__name__, report)


def exchange(all_found: Iterable[Found]) -> None:
    """Gives modules the classes that replace theirs."""
    for _, module, replacement, _ in list(all_found):
        if replacement is not None and type(module) is not replacement:
            module.__class__ = replacement
            module.prepare()  # type: ignore[operator]


def reported(all_found: Iterable[Found]) -> Report:
    """The report of what is found."""
    replaced, left = {}, {}
    for name, module, replacement, why in all_found:
        if replacement is not None and type(module) is replacement:
            replaced[name] = replacement.original.__name__
        else:
            left[name] = why or "not replaced"
    return Report(replaced, left)


def undo(model: nn.Module, kinds: Iterable[type[Replacement]]) -> None:
    """Gives modules of these classes their own class again."""
    check_model(model)
    known = tuple(kinds)
    for module in list(model.modules()):
        if isinstance(module, Replacement) and type(module) in known:
            for attribute in module.prepared:
                module.__dict__.pop(attribute, None)
            module.__class__ = module.original  # type: ignore[assignment]


def check_model(model: object) -> None:
    """Raises a TypeError unless it is a module of Python."""
    if isinstance(model, ScriptModule):
        raise TypeError("model: is a module of TorchScript; give the model that it was scripted from")
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
