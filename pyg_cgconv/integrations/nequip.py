"""NequIP: `accelerate(model)` has convolutions computed by generated kernels, and self-connections by type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from .._torch import refuse_torchscript
from ..ops import Edges, Neighbors, sorted_neighbors
from ._convolution import Convolution, obstacle
from ._replacement import Accelerator, Found, Model, Replacement, found
from ._self_connection import SelfConnection, looked_up
from ._versions import Known

KNOWN = Known("nequip", "0.16", "0.20")

try:
    from nequip.data import AtomicDataDict
    from nequip.nn._tp_scatter_base import TensorProductScatter as _TensorProductScatter
    from nequip.nn.embedding import NodeTypeEmbed as _NodeTypeEmbed
    from nequip.nn.interaction_block import InteractionBlock
except ImportError as error:
    raise KNOWN.missing() from error

KNOWN.check()

from ._nequip_model import GraphModel  # noqa: E402  (only where NequIP is installed)

__all__ = ["NodeTypeEmbed", "SelfConnection", "TensorProductScatter", "accelerate", "report", "restore"]


class TensorProductScatter(Replacement, _TensorProductScatter):
    """The product of an interaction block, and the sum over the edges of each target."""

    original = _TensorProductScatter
    prepared = ("_sum",)
    _nequip_custom_ops_libs = ("pyg_cgconv",)  # NequIP imports these where it loads a compiled model

    @classmethod
    def obstacle(cls, module: Any) -> str:
        return obstacle(module.tp)

    def prepare(self) -> None:
        self._sum = Convolution(self.tp)

    def forward(self, x: Tensor, edge_attr: Tensor, edge_weight: Tensor, edge_dst: Tensor, edge_src: Tensor) -> Tensor:
        refuse_torchscript(self)
        return self._sum(x, _edges(edge_dst, edge_src, x.shape[0]), edge_attr, edge_weight)


def _edges(target: Tensor, source: Tensor, nodes: int) -> Edges:
    """The edges; layers that are given the two rows of one edge_index share its sort."""
    both = target._base
    if both is not None and both is source._base and both.dim() == 2 and both.shape[0] == 2:
        given, rows = (target, source), both.unbind(0)
        if all(_memory(end) == _memory(row) for end, row in zip(given, rows, strict=True)):
            return sorted_neighbors(both, nodes, "target_to_source")
    return Neighbors((source, target), nodes)


def _memory(tensor: Tensor) -> tuple:
    return tensor.storage_offset(), tensor.shape, tensor.stride()


class NodeTypeEmbed(Replacement, _NodeTypeEmbed):
    """The rows of a table by the atoms' types. Self-connections are told of the table."""

    original = _NodeTypeEmbed

    def forward(self, data: AtomicDataDict.Type) -> AtomicDataDict.Type:
        data = super().forward(data)
        attributes = data[AtomicDataDict.NODE_ATTRS_KEY]
        if not _not_of_types(self, attributes.shape[-1]):
            looked_up(attributes, data[AtomicDataDict.ATOM_TYPE_KEY].view(-1), self.embed_module.weight)
        return data


def _not_of_types(embedding: Any, attributes: int) -> str:
    """Why so many attributes of atoms are not rows of a table by type; empty if they are."""
    if type(embedding) not in (NodeTypeEmbed, NodeTypeEmbed.original):
        return f"{type(embedding).__name__} makes its attributes"
    table = embedding.embed_module
    if type(table) is not nn.Embedding or table.padding_idx is not None or table.max_norm is not None:
        return "its attributes are not looked up in a plain torch.nn.Embedding"
    if table._forward_hooks or table._forward_pre_hooks:
        return "the table of its attributes has hooks"
    if attributes != table.embedding_dim:
        return f"{attributes} attributes of an atom are not those of its type, {table.embedding_dim}, alone"
    return ""


class _Models(Accelerator):
    """Self-connections are replaced in models that make their attributes."""

    def classes(self) -> list[type[Replacement]]:
        return [*super().classes(), SelfConnection]

    def find(self, model: nn.Module) -> Iterator[Found]:
        yield from super().find(model)
        embeddings = [module for module in model.modules() if isinstance(module, _NodeTypeEmbed)]
        for name, block in model.named_modules():
            connection = block.sc if isinstance(block, InteractionBlock) else None
            if connection is not None:
                yield _self_connection(f"{name}.sc".lstrip("."), connection, embeddings)


def _self_connection(name: str, module: Any, embeddings: list[Any]) -> Found:
    if type(module) not in (SelfConnection, SelfConnection.original):
        return Found(name, module, None, f"{type(module).__name__} is no FullyConnectedTensorProduct of e3nn")
    obstacles = [_not_of_types(embedding, module.irreps_in2.dim) for embedding in embeddings]
    if "" not in obstacles:
        return Found(name, module, None, next(iter(obstacles), "there is no NodeTypeEmbed that makes its attributes"))
    return found(name, module, SelfConnection)


def _others(module: nn.Module) -> str:
    is_other = isinstance(module, _TensorProductScatter) and not isinstance(module, TensorProductScatter)
    return f"{type(module).__name__} is another accelerator" if is_other else ""


_models = _Models(
    {_TensorProductScatter: TensorProductScatter},
    "the TensorProductScatter of NequIP's interaction blocks",
    _others,
    {kind.original: kind for kind in (GraphModel, NodeTypeEmbed)},
)


def accelerate(model: Model, *, cuda_graphs: bool = False) -> Model:
    """Has a model of NequIP computed by generated kernels, where there are some. Everything else of it stays.

    The products of the interaction blocks, with their sums over edges, and their self-connections are replaced. State
    dict, parameters, ``.to()`` and ``copy.deepcopy`` work as before, in training and in NequIP's compile mode. In a
    configuration the same is the model modifier ``enable_pyg_cgconv``.

    Args:
        model: a model of NequIP, in Python; or a module that has some.
        cuda_graphs: whether calls of an eager model on a GPU are captured in CUDA graphs. A graph serves one number of
            structures, and atoms and edges that fill at least half of it. Its results are those of atoms and
            structures; in training they have gradients by the parameters, once. Calls that no graph serves run as
            usual; the log tells why.

    Returns:
        The same model. :func:`report` tells what was replaced, as does the log (level INFO).

    Raises:
        TypeError: the model is no module, or one of TorchScript.
        ValueError: nothing in it can be replaced; or graphs are asked for, and it has no model that is not compiled.
    """
    return _models.accelerate(model, cuda_graphs)


restore, report = _models.restore, _models.report
