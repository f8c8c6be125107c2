"""The layer: gather, Clebsch-Gordan tensor product with edge features, sum over incoming edges."""

from __future__ import annotations

from e3nn import o3
from torch import Tensor
from torch_geometric.nn import MessagePassing

from ._instructions import channelwise, tensor_product
from ._reference import ReferenceProduct


class TensorProductConv(MessagePassing):
    def __init__(
        self,
        irreps_in,
        irreps_edge,
        irreps_out,
        instructions=None,
        *,
        layout="mul_ir",
        shared_weights=False,
        aggr="add",
        deterministic=False,
        backend="auto",
    ):
        super().__init__(aggr=aggr, node_dim=0)
        self.irreps_in, self.irreps_edge = o3.Irreps(irreps_in), o3.Irreps(irreps_edge)
        self.irreps_out = o3.Irreps(irreps_out)
        if instructions is None:
            self.irreps_out, instructions = channelwise(self.irreps_in, self.irreps_edge, self.irreps_out)
        product = tensor_product(
            self.irreps_in, self.irreps_edge, self.irreps_out, instructions, shared_weights=shared_weights
        )
        self.instructions = instructions
        self.weight_numel = product.weight_numel
        self.layout, self.shared_weights = layout, shared_weights
        self._reference = ReferenceProduct(
            self.irreps_in, self.irreps_edge, self.irreps_out, instructions, layout, shared_weights
        )

    def forward(self, x, edge_index, edge_attr: Tensor, weight: Tensor, size=None) -> Tensor:
        if isinstance(x, Tensor):
            x = (x, x)
        return self.propagate(edge_index, x=x, edge_attr=edge_attr, weight=weight, size=size)

    def message(self, x_j: Tensor, edge_attr: Tensor, weight: Tensor) -> Tensor:
        return self._reference(x_j, edge_attr, weight)
