"""The layer: gather, Clebsch-Gordan tensor product with edge features, sum over incoming edges."""

from __future__ import annotations

import warnings

import torch
from e3nn import o3
from torch import Tensor
from torch_geometric.nn import MessagePassing

from cuda_kernels.problem import LAYOUTS, Problem

from .._checks import check_choice
from ..ops import DTYPES, Edges, contract, sorted_edges
from ..tensor_product import MODE, ReferenceProduct, channelwise, describe, problem_of, tensor_product

BACKENDS = ("auto", "cuda", "cpu", "reference")


class TensorProductConv(MessagePassing):
    r"""Equivariant convolution with the Clebsch-Gordan tensor product of node and edge features, as in the `"Tensor
    field networks" <https://arxiv.org/abs/1802.08219>`_ and `"NequIP" <https://arxiv.org/abs/2101.03164>`_ papers.

    .. math::
        \mathbf{x}^{\prime}_i = \sum_{j \in \mathcal{N}(i)} \mathbf{x}_j \otimes_{\mathbf{w}_{ji}} \mathbf{e}_{ji},
        \qquad (\mathbf{x} \otimes_{\mathbf{w}} \mathbf{e})_{uk} = \sum_{p} w_{pu} \sum_{ij} C^{p}_{ijk}\, x_{ui}\, e_j

    with paths :math:`p`, channels :math:`u` and normalised Clebsch-Gordan coefficients :math:`C^p`. It equals
    :class:`e3nn.o3.TensorProduct` with external weights on ``x[edge_index[0]]``, summed over the target nodes, but no
    message is kept in memory: one generated kernel gathers, contracts and sums. Derivatives of any order are such
    kernels too.

    Args:
        irreps_in: Irreps of the node features.
        irreps_edge: Irreps of the edge features, usually those of spherical harmonics.
        irreps_out: Irreps of the output. Without ``instructions`` a filter, whose multiplicities are not read: every
            path to one of its irreps is taken, with mode "uvu" and an output slot of its own. The attribute
            :attr:`irreps_out` of the layer has these slots, sorted.
        instructions: e3nn's list of ``(i_in1, i_in2, i_out, mode, has_weight[, path_weight])``, which fixes the order
            of the weights and e3nn's normalisation. Fused kernels serve mode "uvu"; other modes run on the reference
            backend.
        layout: Order of the numbers in rows of node (and edge) features: "mul_ir" (e3nn's) or "ir_mul" (a component's
            channels together, the faster).
        shared_weights: One row of weights for all edges. Their gradient needs memory for a row for each edge.
        aggr: "add" (or "sum"), or "mean" over the incoming edges.
        deterministic: Sum in one fixed order, also in derivatives, so that equal inputs give equal bits. The CPU
            kernels and the forward on a GPU always do.
        backend: "cuda" or "cpu" for the fused kernels, "reference" for e3nn's tensor product and scatter (slow; any
            mode), "auto" for the fused kernels of the device that the input is on.

    Shapes:
        - **x:** node features :math:`(|\mathcal{V}|, \text{irreps\_in.dim})`, or a pair of source and target features
          if bipartite, of which only the first is read (the second may be :obj:`None` if ``size`` is given)
        - **edge_index:** :math:`(2, |\mathcal{E}|)`, int64 or int32, row 0 the source and row 1 the target, in any
          order, or an :class:`~torch_geometric.EdgeIndex` (if sorted by column, no sort is needed), or
          :class:`~pyg_cgconv.Edges`, which were sorted before and know their numbers of nodes (leave out ``size``).
          Calls with one tensor sort it once.
        - **edge_attr:** :math:`(|\mathcal{E}|, \text{irreps\_edge.dim})`
        - **weight:** :math:`(|\mathcal{E}|, \text{weight\_numel})`, or :math:`(\text{weight\_numel},)` if shared
        - **output:** :math:`(|\mathcal{V}_t|, \text{irreps\_out.dim})`, the dtype (float32 or float64) of all inputs

    Raises:
        ValueError: an argument has a wrong shape, layout, device or value.
        TypeError: the inputs' dtypes differ, or no kernel computes with them.
    """

    def __init__(
        self,
        irreps_in: o3.Irreps | str,
        irreps_edge: o3.Irreps | str,
        irreps_out: o3.Irreps | str,
        instructions: list[tuple] | None = None,
        *,
        layout: str = "mul_ir",
        shared_weights: bool = False,
        aggr: str = "add",
        deterministic: bool = False,
        backend: str = "auto",
    ):
        check_choice("layout", layout, LAYOUTS)
        check_choice("backend", backend, BACKENDS)
        check_choice("aggr", aggr, ("add", "sum", "mean"))
        super().__init__(aggr=aggr, node_dim=0)
        self.irreps_in, self.irreps_edge, self.irreps_out = map(o3.Irreps, (irreps_in, irreps_edge, irreps_out))
        if instructions is None:
            self.irreps_out, instructions = channelwise(self.irreps_in, self.irreps_edge, self.irreps_out)
        arguments = (self.irreps_in, self.irreps_edge, self.irreps_out, list(instructions))
        product = tensor_product(
            *arguments, shared_weights=shared_weights, compile_left_right=False, compile_right=False
        )
        self.instructions = product.instructions
        self.weight_numel: int = product.weight_numel
        self.layout, self.shared_weights, self.deterministic = layout, shared_weights, deterministic
        self.backend = _resolve(backend, self.instructions)
        self._reference = ReferenceProduct(*arguments, layout, shared_weights)
        self._description = None if self.backend == "reference" else describe.convolution(product, layout)
        self._dims = self.irreps_in.dim, self.irreps_edge.dim  # torch.compile cannot trace e3nn's irreps

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor | None],
        edge_index: Tensor | Edges,
        edge_attr: Tensor,
        weight: Tensor,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        x_source, x_target = (x, x) if isinstance(x, Tensor) else x
        if isinstance(edge_index, Edges):
            known = edge_index.sources, edge_index.targets
            if size is not None and tuple(size) != known:
                raise ValueError(f"size: {size} contradicts the edges, which have {known} source and target nodes")
            num_edges, size = edge_index.num_edges, known
        else:
            num_edges = _num_edges(edge_index)
        self._check(x_source, edge_index.device, num_edges, edge_attr, weight)
        sources, targets = _sizes(x_source, x_target, size)
        if self._description is None or self.explain:
            if isinstance(edge_index, Edges):
                edge_index = torch.stack([edge_index.source, edge_index.target])
            return self.propagate(
                edge_index, x=(x_source, x_target), edge_attr=edge_attr, weight=weight, size=(sources, targets)
            )
        edges = edge_index if isinstance(edge_index, Edges) else sorted_edges(edge_index, sources, targets)
        out = contract(self._description, (x_source, edge_attr, weight), edges, self.deterministic)
        if self.aggr == "mean":
            out = out / edges.in_degrees.clamp(min=1).unsqueeze(-1)
        return out

    def message(self, x_j: Tensor, edge_attr: Tensor, weight: Tensor) -> Tensor:
        return self._reference(x_j, edge_attr, weight)

    def aggregate(self, inputs: Tensor, index: Tensor, dim_size: int) -> Tensor:
        return self._reference.scatter(inputs, index, dim_size, "mean" if self.aggr == "mean" else "sum")

    @property
    def problem(self) -> Problem | None:
        """What the kernels are generated from, for float32; None on the reference backend."""
        return None if self._description is None else problem_of(self._description, "float32")

    def _check(self, x: Tensor, device: torch.device, edges: int, edge_attr: Tensor, weight: Tensor) -> None:
        self._check_shape("x", x, (x.shape[0] if x.dim() else 0, self._dims[0]))
        self._check_shape("edge_attr", edge_attr, (edges, self._dims[1]))
        self._check_shape("weight", weight, (self.weight_numel,) if self.shared_weights else (edges, self.weight_numel))
        for name, tensor in (("edge_attr", edge_attr), ("weight", weight)):
            if tensor.dtype != x.dtype:
                raise TypeError(f"{name}: dtype {tensor.dtype} differs from that of x, {x.dtype}; convert one of them")
        for name, found in (("edge_index", device), ("edge_attr", edge_attr.device), ("weight", weight.device)):
            if found != x.device:
                raise ValueError(f"{name}: on {found}, but x is on {x.device}; move it with .to()")
        if x.dtype not in DTYPES:
            raise TypeError(f"x: dtype {x.dtype} has no kernel; convert x, edge_attr and weight to float32 or float64")
        if self.backend in ("cuda", "cpu") and x.device.type != self.backend:
            raise ValueError(
                f"x: on {x.device}, but the layer was made with backend={self.backend!r}; move x, or use 'auto'"
            )

    def _check_shape(self, name: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: expected a tensor of shape {expected}, got {type(tensor).__name__}")
        if tuple(tensor.shape) != expected:
            raise ValueError(
                f"{name}: expected shape {expected}, got {tuple(tensor.shape)}, in {self} with {self.weight_numel} "
                f"weights {'for all edges' if self.shared_weights else 'an edge'}"
            )

    def __repr__(self) -> str:
        irreps = f"{self.irreps_in} x {self.irreps_edge} -> {self.irreps_out}"
        return f"{self.__class__.__name__}({irreps}, layout={self.layout!r}, backend={self.backend!r})"


def _resolve(backend: str, instructions) -> str:
    """The backend that runs: fused kernels know the mode "uvu"."""
    unsupported = sorted({i.connection_mode for i in instructions} - {MODE})
    if not unsupported or backend == "reference":
        return backend
    if backend != "auto":
        raise ValueError(
            f"instructions: backend {backend!r} has kernels for mode {MODE!r} only, got {unsupported}; "
            "use backend='reference'"
        )
    warnings.warn(
        f"instructions: modes {unsupported} have no fused kernel; this layer runs on the reference backend (e3nn), "
        "which is slow and keeps every message in memory. Pass backend='reference' to say that this is meant.",
        stacklevel=3,
    )
    return "reference"


def _num_edges(edge_index: Tensor) -> int:
    if not isinstance(edge_index, Tensor):
        raise TypeError(
            f"edge_index: expected an integer tensor (2, E), an EdgeIndex or Edges, got {type(edge_index).__name__}; "
            "of separate sources and targets make Edges((source, target), nodes)"
        )
    shape = edge_index.shape
    if len(shape) != 2 or shape[0] != 2 or edge_index.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"edge_index: expected an integer tensor (2, E), an EdgeIndex or Edges, got {edge_index.dtype} "
            f"{tuple(shape)}"
        )
    return shape[1]


def _sizes(x_source: Tensor, x_target: Tensor | None, size: tuple[int, int] | None) -> tuple[int, int]:
    """(source nodes, target nodes)"""
    sources, targets = size or (None, None)
    if sources is not None and sources != x_source.shape[0]:
        raise ValueError(
            f"size: {size}, as given or of Edges, says {sources} source nodes, but x has {x_source.shape[0]} rows"
        )
    if targets is None:
        if x_target is None:
            raise ValueError("size: needed when x is (x_source, None): give (source nodes, target nodes)")
        targets = x_target.shape[0]
    elif x_target is not None and targets != x_target.shape[0]:
        raise ValueError(
            f"size: {size}, as given or of Edges, says {targets} target nodes, but x[1] has {x_target.shape[0]} rows"
        )
    return x_source.shape[0], targets
