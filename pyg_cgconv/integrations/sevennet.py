"""SevenNet: `accelerate(model)` has convolutions computed by generated kernels, and self-connections by species."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .._torch import refuse_torchscript
from ..ops import sorted_neighbors
from ._convolution import Convolution, obstacle
from ._fully_connected import FullyConnectedNet
from ._replacement import Accelerator, Found, Model, Replacement, found
from ._self_connection import SelfConnection, looked_up
from ._versions import Known

KNOWN = Known("sevenn", "0.12", "0.14")

try:
    from sevenn import _keys as keys
    from sevenn.nn import convolution as sevenn_convolution
    from sevenn.nn import node_embedding
    from sevenn.nn.self_connection import SelfConnectionIntro
except ImportError as error:
    raise KNOWN.missing() from error

KNOWN.check()

from ._sevennet_model import AtomGraphSequential, AtomReduce, ForceStressOutputFromEdge  # noqa: E402

__all__ = ["IrrepsConvolution", "OnehotEmbedding", "SelfConnection", "accelerate", "report", "restore"]


class IrrepsConvolution(Replacement, sevenn_convolution.IrrepsConvolution):
    """The convolution of an interaction block."""

    original = sevenn_convolution.IrrepsConvolution
    prepared = ("_sum",)

    @classmethod
    def obstacle(cls, module: Any) -> str:
        return obstacle(module.convolution) if module.layer_instantiated else ""

    def prepare(self) -> None:
        self._sum = Convolution(self.convolution) if self.layer_instantiated else None

    def instantiate(self) -> None:
        super().instantiate()
        why = obstacle(self.convolution)
        if why:
            raise ValueError(f"convolution: {why}; undo accelerate(model) by restore(model) before it is instantiated")
        self.prepare()
        _models.exchange(self)

    def forward(self, data: dict[str, Any]) -> dict[str, Any]:
        refuse_torchscript(self)
        if self._sum is None:
            raise ValueError("model: its convolutions are not instantiated; call their instantiate() first")
        weight = self.weight_nn(data[self.key_weight_input])
        x: Tensor = data[self.key_x]
        if self.is_parallel:
            x = torch.cat([x, data[keys.NODE_FEATURE_GHOST]])
        edges = sorted_neighbors(data[self.key_edge_idx], x.shape[0], "target_to_source")
        x = self._sum(x, edges, data[self.key_filter], weight).div(self.denominator)
        if self.is_parallel:
            x = torch.tensor_split(x, data[keys.NLOCAL])[0]
        data[self.key_x] = x
        return data


class OnehotEmbedding(Replacement, node_embedding.OnehotEmbedding):
    """One-hot rows of species. Self-connections are told of the species."""

    original = node_embedding.OnehotEmbedding

    def forward(self, data: dict[str, Any]) -> dict[str, Any]:
        species = data[self.key_x]
        data = super().forward(data)
        if self.key_additional_output is not None and species.dim() == 1:
            looked_up(data[self.key_additional_output], species, None)
        return data


class _Models(Accelerator):
    """Self-connections are replaced where their attributes are one-hot species."""

    def classes(self) -> list[type[Replacement]]:
        return [*super().classes(), SelfConnection]

    def find(self, model: nn.Module) -> Iterator[Found]:
        yield from super().find(model)
        for name, module in model.named_modules():
            if isinstance(module, SelfConnectionIntro):
                yield _self_connection(f"{name}.fc_tensor_product".lstrip("."), module)


def _self_connection(name: str, module: Any) -> Found:
    product = module.fc_tensor_product
    if product is None:
        return Found(name, module, None, "it is not instantiated; call accelerate(model) again once it is")
    if type(product) not in (SelfConnection, SelfConnection.original):
        return Found(name, product, None, f"{type(product).__name__} is no FullyConnectedTensorProduct of e3nn")
    return found(name, product, SelfConnection)


def _others(module: nn.Module) -> str:
    is_other = isinstance(module, sevenn_convolution.IrrepsScatterGatterFusedConvolution)
    return "another accelerator computes it; build the model without one" if is_other else ""


_models = _Models(
    {kind.original: kind for kind in (IrrepsConvolution, FullyConnectedNet)},
    "the IrrepsConvolution of SevenNet's interaction blocks",
    _others,
    {kind.original: kind for kind in (AtomGraphSequential, AtomReduce, ForceStressOutputFromEdge, OnehotEmbedding)},
)


def accelerate(model: Model, *, cuda_graphs: bool = False) -> Model:
    """Has a model of SevenNet computed by generated kernels, where there are some. Everything else of it stays.

    The convolutions of the interaction blocks are replaced, with the networks that make their weights, whether their
    layers are instantiated or not yet, and self-connections with weights by species. State dict, parameters, ``.to()``
    and ``copy.deepcopy`` work as before.

    Args:
        model: an ``AtomGraphSequential``, in Python; or a module that has some.
        cuda_graphs: whether calls on a GPU are captured in CUDA graphs. A graph serves one number of structures, and
            atoms and edges that fill at least half of it. Its results are those of atoms and structures; in training
            they have gradients by the parameters, once. Calls that no graph serves run as usual; the log tells why.

    Returns:
        The same model. :func:`report` tells what was replaced, as does the log (level INFO).

    Raises:
        TypeError: the model is no module, or one of TorchScript.
        ValueError: nothing in it can be replaced; or graphs are asked for, and it has no ``AtomGraphSequential``.
    """
    return _models.accelerate(model, cuda_graphs)


restore, report = _models.restore, _models.report
