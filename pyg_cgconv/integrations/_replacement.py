"""A module computed by another class: the module stays, its class is exchanged.

So its parameters, its state dict, hooks, device and place in the model stay as they are.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from torch import nn
from torch.jit import ScriptModule

from .._torch import NotScripted

logger = logging.getLogger("pyg_cgconv.integrations")


class Replacement(NotScripted, nn.Module):
    """What classes that replace others have in common; they derive from this class, then from that of the module.

    Attributes:
        original: The class of the modules that it replaces.
        prepared: The names of attributes that :meth:`prepare` makes. They are not pickled, but made again.
        told: The names of attributes that the model around it tells.
    """

    original: ClassVar[type[nn.Module]]
    prepared: ClassVar[tuple[str, ...]] = ()
    told: ClassVar[tuple[str, ...]] = ()
    instead = (
        "export the model with torch.export, compile it with torch.compile, or undo accelerate(model) by restore(model)"
    )

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """What the packages' modules have is not known to a type checker."""

    @classmethod
    def obstacle(cls, module: Any) -> str:
        """Why this class cannot compute what the module does; empty if it can."""
        return ""

    def hindrance(self) -> str:
        """Why the original computes now, such as what others have put into the module; empty if this class does."""
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


Model = TypeVar("Model", bound=nn.Module)


class Accelerator:
    """What an integration does with models.

    Args:
        replacements: Classes of modules, and what replaces them.
        looked_for: What these are, in words.
        others: Why a module of another class is left that somebody may expect to be replaced; empty for other modules.
        models: Classes of whole models and of parts of them, and what replaces them so that CUDA graphs may serve them.
    """

    def __init__(
        self,
        replacements: dict[type[nn.Module], type[Replacement]],
        looked_for: str,
        others: Callable[[nn.Module], str] = lambda module: "",
        models: Mapping[type[nn.Module], type[Replacement]] | None = None,
    ):
        self.replacements, self.looked_for, self.others = replacements, looked_for, others
        self.models = models or {}

    def accelerate(self, model: Model, cuda_graphs: bool = False) -> Model:
        """Has a model computed by generated kernels, where there are some.

        Args:
            cuda_graphs: whether calls of the whole models in it are captured.

        Raises:
            TypeError: the model is no module, or one of TorchScript.
            ValueError: nothing in it can be replaced; or graphs are asked for, and there is no whole model.
        """
        check_model(model)
        self.exchange(model)
        report = self.report(model)
        if not report.replaced:
            raise ValueError(
                f"model: {type(model).__name__} has nothing that can be replaced; looked for {self.looked_for}. "
                f"{report}"
            )
        capturing = [kind for kind in self.models.values() if "cuda_graphs" in kind.told]
        whole = [module for module in model.modules() if type(module) in capturing]
        if cuda_graphs and not whole:
            known = ", ".join(kind.original.__name__ for kind in capturing)
            raise ValueError(f"cuda_graphs: {type(model).__name__} is none of {known}, nor has it one")
        for module in whole:
            module.cuda_graphs = bool(cuda_graphs)  # type: ignore[assignment]
        logger.info("%s: %s", type(model).__name__, report)
        return model

    def restore(self, model: Model) -> Model:
        """Undoes ``accelerate(model)``, in place: every module has its own class again.

        Returns:
            The same model, also if nothing of it was replaced.

        Raises:
            TypeError: the model is no module, or one of TorchScript.
        """
        check_model(model)
        for module in list(model.modules()):
            if isinstance(module, Replacement) and type(module) in self.classes():
                for attribute in (*module.prepared, *module.told):
                    module.__dict__.pop(attribute, None)
                module.__class__ = module.original  # type: ignore[assignment]
        return model

    def report(self, model: nn.Module) -> Report:
        """Which modules of a model run by generated kernels, and which were left, by their names.

        Raises:
            TypeError: the model is no module, or one of TorchScript.
        """
        check_model(model)
        replaced, left = {}, {}
        for name, module, replacement, why in self.find(model):
            if replacement is None or type(module) is not replacement:
                left[name] = why or "not replaced"
            elif hindrance := module.hindrance():
                left[name] = hindrance
            else:
                replaced[name] = replacement.original.__name__
        return Report(replaced, left)

    def classes(self) -> list[type[Replacement]]:
        """All classes that replace others."""
        return [*self.replacements.values(), *self.models.values()]

    def find(self, model: nn.Module) -> Iterator[Found]:
        """The modules that are looked for, replaced or not."""
        for name, module in model.named_modules():
            kind = module.original if isinstance(module, Replacement) else type(module)
            if kind in self.replacements:
                yield found(name, module, self.replacements[kind])
            elif why := self.others(module):
                yield Found(name, module, None, why)

    def exchange(self, model: nn.Module) -> None:
        """Gives modules the classes that replace theirs."""
        for _, module, replacement, _ in list(self.find(model)):
            if replacement is not None and type(module) is not replacement:
                _exchange(module, replacement)
        for module in list(model.modules()):
            if type(module) in self.models:
                _exchange(module, self.models[type(module)])


def _exchange(module: nn.Module, replacement: type[Replacement]) -> None:
    module.__class__ = replacement
    module.prepare()  # type: ignore[operator]


def found(name: str, module: nn.Module, replacement: type[Replacement]) -> Found:
    """The module with its replacement, unless there is an obstacle."""
    why = "" if type(module) is replacement else replacement.obstacle(module)
    return Found(name, module, None if why else replacement, why)


def hooks_of(module: nn.Module) -> tuple[Mapping, ...]:
    """What is called where the module is."""
    return module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks


def check_model(model: object) -> None:
    """Raises a TypeError unless it is a module of Python."""
    if isinstance(model, ScriptModule):
        raise TypeError("model: is a module of TorchScript; give the model that it was scripted from")
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
