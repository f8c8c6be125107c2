"""What a package with models says of them. The rest of the benchmark knows no more of it."""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from .kind import Missing

MODELS = {
    "mace": ("mace-large", "mace-medium"),
    "nequip": ("nequip-m", "nequip-l3"),
    "sevennet": ("sevennet-l3i5",),
}
"""The models of each package. Each package has a module here that makes them, and an integration."""

REFERENCE, OURS, GRAPHS = "e3nn", "pyg_cgconv", "pyg_cgconv graphs"
"""The package's own path, this project's, and that with CUDA graphs."""
COMPILED = "e3nn-compiled"
"""The package's own path, in its own compile mode; measured only where somebody asks for it, as it takes minutes."""

Make: TypeAlias = Callable[[str, nn.Module], nn.Module]
"""Makes of a model's name and the model, which it may change, what a peer makes of it; or raises an error that says why
there is no such thing."""


def detached(batch: dict[str, Any]) -> dict[str, Any]:
    """What a model is given of a batch. It asks for gradients by tensors of it, which would still ask at the next one's
    call."""
    return {name: value.detach() if isinstance(value, Tensor) else value for name, value in batch.items()}


class Package(ABC):
    """Models of a package with random weights.

    Attributes:
        accelerate: That of this project's integration.
        default_dtype: What torch must be set to while anything is called.
    """

    accelerate: ClassVar[Callable[..., nn.Module]]

    def __init__(self, dtype: torch.dtype, device: torch.device):
        self.dtype, self.device = dtype, device
        self.default_dtype = dtype

    @abstractmethod
    def model(self, name: str) -> nn.Module:
        """The model of this name, as the package has it."""

    @abstractmethod
    def batch(self, sizes: list[int]) -> dict[str, Any]:
        """Structures of so many atoms each, with their edges, as a model takes them."""

    @abstractmethod
    def evaluate(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Energies and forces; in training with a graph of derivatives. The batch stays as it is."""

    @abstractmethod
    def peers(self) -> dict[str, Make]:
        """The package's own ways to other kernels, by the names of the benchmark."""

    @abstractmethod
    def compiled(self, name: str, model: nn.Module) -> nn.Module:
        """The model in the compile mode of the package."""

    def contenders(self) -> dict[str, Make]:
        """All that are compared; the reference is the first."""
        own = self.accelerate
        made: dict[str, Make] = {REFERENCE: lambda name, model: model, COMPILED: self.compiled, **self.peers()}
        made[OURS] = lambda name, model: own(model)
        if "cuda_graphs" in inspect.signature(own).parameters:
            made[GRAPHS] = self._with_graphs
        return made

    def make(self, contender: str, name: str, model: nn.Module) -> nn.Module:
        """What a contender makes of a copy of the model."""
        return self.contenders()[contender](name, copy.deepcopy(model)).to(self.device)

    def _with_graphs(self, name: str, model: nn.Module) -> nn.Module:
        self.need_gpu("CUDA graphs need a GPU")
        return self.accelerate(model, cuda_graphs=True)

    def need_gpu(self, why: str) -> None:
        if self.device.type != "cuda":
            raise Missing(why)

    def need_kernels_of_cuequivariance(self) -> None:
        """Packages take slow kernels in silence where the fast ones are not installed."""
        import_module("cuequivariance_torch")
        if self.device.type == "cuda":
            import_module("cuequivariance_ops_torch")


def load(package: str, dtype: torch.dtype, device: torch.device) -> Package:
    """The package of this name.

    Raises:
        ValueError: there is none.
        ImportError: it is not installed.
    """
    if package not in MODELS:
        raise ValueError(f"models: {package!r} is not one of {', '.join(MODELS)}")
    return import_module(f"..{package}_models", __name__).PACKAGE(dtype, device)
