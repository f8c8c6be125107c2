"""The layer: gather, Clebsch-Gordan tensor product with edge features, sum over incoming edges."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from e3nn import o3
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.aggr import Aggregation
from torch_geometric.nn.resolver import aggregation_resolver

from cuda_kernels.problem import LAYOUTS, Problem

from .._checks import check_choice, check_stored
from .._functions import without_autocast
from .._torch import is_plain, refuse_torchscript
from ..ops import DTYPES, FLOWS, Edges, check_nodes, contract, sorted_edges
from ..tensor_product import (
    ReferenceProduct,
    channelwise,
    irreps_of,
    problem_of,
    summands,
    tensor_product,
    without_kernel,
)
from ._aggregation import SUMS, backend_for, known_aggregation
from ._graph import Graph, node_counts, pair_of, read_graph

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
            of the weights. Those of an e3nn product or of a layer (seven fields) are taken with the factors that they
            have. Fused kernels serve all modes but "uvv"; a list that has it runs on the reference backend. Modes
            "uvw", "uuw" and "u<vw" are a convolution without weights, then matrix products at the nodes; with weights
            of each edge they are products of the edges, then linear maps whose results are summed.
        layout: Order of the numbers in rows of node (and edge) features: "mul_ir" (e3nn's) or "ir_mul" (a component's
            channels together, the faster).
        shared_weights: One row of weights for all edges. Their gradient needs memory for a row for each edge, but for
            those that mix channels it does not.
        irrep_normalization: e3nn's: "component" (its default), "norm" or "none".
        path_normalization: e3nn's: "element" (its default), "path" or "none".
        aggr: "add" (or "sum"), or "mean" over the incoming edges. PyG's other aggregations need each message: they run
            on the reference backend.
        deterministic: Sum in one fixed order, also in derivatives, so that equal inputs give equal bits. The CPU
            kernels and the forward on a GPU always do. :func:`torch.use_deterministic_algorithms` asks for it, too.
        backend: "cuda" or "cpu" for the fused kernels, "reference" for e3nn's tensor product and scatter (slow; any
            mode), "auto" for the fused kernels of the device that the input is on.
        flow: "source_to_target", or "target_to_source" if row 0 of ``edge_index`` is the target. Pairs ``x`` and
            ``size`` are (source, target) in any case.

    Shapes:
        - **x:** node features :math:`(|\mathcal{V}|, \text{irreps\_in.dim})`, or a pair of source and target features
          if bipartite, of which only the first is read (the second may be :obj:`None` if ``size`` is given)
        - **edge_index:** :math:`(2, |\mathcal{E}|)`, int64 or int32, row 0 the source and row 1 the target, in any
          order, or an :class:`~torch_geometric.EdgeIndex` (if sorted by column, no sort is needed), or
          :class:`~pyg_cgconv.Edges`, which were sorted before and know their numbers of nodes (leave out ``size``), or
          a transposed sparse adjacency matrix. Calls with one tensor sort it once.
        - **edge_attr:** :math:`(|\mathcal{E}|, \text{irreps\_edge.dim})`
        - **weight:** :math:`(|\mathcal{E}|, \text{weight\_numel})`, or :math:`(\text{weight\_numel},)` if shared;
          :obj:`None` where no path has weights
        - **output:** :math:`(|\mathcal{V}_t|, \text{irreps\_out.dim})`, the dtype (float32 or float64) of x

    Inputs have one dtype. Beside features in float32, ``edge_attr`` and ``weight`` may be stored in bfloat16 or
    float16: sums and the output are float32, and gradients have the dtype of their input.

    The messages themselves are computed, by the reference backend, where somebody wants to see or change them: a
    subclass has its own ``message``, ``aggregate`` or ``update``, PyG's hooks are registered, an explainer is at work,
    or ``layer.fuse`` is set to False. Under autocast, inputs are brought to float32.

    Raises:
        ValueError: an argument has a wrong shape, layout, device or value.
        TypeError: the inputs' dtypes differ, or no kernel computes with them.
    """

    def __init__(
        self,
        irreps_in: o3.Irreps | str,
        irreps_edge: o3.Irreps | str,
        irreps_out: o3.Irreps | str,
        instructions: Sequence[tuple] | None = None,
        *,
        layout: str = "mul_ir",
        shared_weights: bool = False,
        irrep_normalization: str | None = None,
        path_normalization: str | None = None,
        aggr: str | list[str] | Aggregation = "add",
        deterministic: bool = False,
        backend: str = "auto",
        flow: str = FLOWS[0],
    ):
        check_choice("layout", layout, LAYOUTS)
        check_choice("backend", backend, BACKENDS)
        check_choice("flow", flow, FLOWS)
        check_choice("irrep_normalization", irrep_normalization, (None, "component", "norm", "none"))
        check_choice("path_normalization", path_normalization, (None, "element", "path", "none"))
        super().__init__(aggr=known_aggregation(aggr), node_dim=0, flow=flow)
        self.irreps_in, self.irreps_edge = irreps_of("irreps_in", irreps_in), irreps_of("irreps_edge", irreps_edge)
        self.irreps_out = irreps_of("irreps_out", irreps_out)
        if instructions is None:
            self.irreps_out, instructions = channelwise(self.irreps_in, self.irreps_edge, self.irreps_out)
        irreps = self.irreps_in, self.irreps_edge, self.irreps_out
        product = tensor_product(
            *irreps,
            instructions,
            shared_weights=shared_weights,
            irrep_normalization=irrep_normalization,
            path_normalization=path_normalization,
            compile_left_right=False,
            compile_right=False,
        )
        self.instructions = product.instructions
        self.weight_numel: int = product.weight_numel
        self.layout, self.shared_weights, self.deterministic = layout, shared_weights, deterministic
        self.backend = backend_for(backend, without_kernel(product), self.aggr)
        self.fuse = self.backend != "reference" and not self._has_own_messages()
        self._reference = ReferenceProduct(*irreps, self.instructions, layout, shared_weights)
        self._summands = None if self.backend == "reference" else summands(product, layout, on_graph=True)
        self._dims = self.irreps_in.dim, self.irreps_edge.dim  # torch.compile cannot trace e3nn's irreps

    @classmethod
    def from_e3nn(cls, product: o3.TensorProduct, **options: Any) -> TensorProductConv:
        """The layer of an e3nn product, with its paths, normalisations and path weights.

        Args:
            product: Weights of its own are not taken: give them to the layer, ``conv(x, edges, y, product.weight)``.
            options: What the layer takes beside these, such as ``layout``.

        Raises:
            TypeError: it is no product of e3nn.
        """
        if not isinstance(product, o3.TensorProduct):
            raise TypeError(f"product: expected an e3nn.o3.TensorProduct, got {type(product).__name__}")
        irreps = product.irreps_in1, product.irreps_in2, product.irreps_out
        return cls(*irreps, product.instructions, shared_weights=product.shared_weights, **options)

    @without_autocast
    def forward(
        self,
        x: Tensor | tuple[Tensor | None, Tensor | None],
        edge_index: Tensor | Edges,
        edge_attr: Tensor,
        weight: Tensor | None = None,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        refuse_torchscript(self)
        pair = pair_of(x)
        graph = read_graph(edge_index, self.flow)
        nodes = node_counts(pair, size, graph)
        x_source, weight = self._checked(pair[0], graph, edge_attr, weight)
        if self._summands is None or not self.fuse or self._wants_messages():
            return self._messages_summed(pair, graph, edge_attr, weight, nodes)
        edges = graph.edges
        if not isinstance(edges, Edges):
            edges = sorted_edges(edges, *nodes, self.flow)
        evaluate = partial(contract, edges=edges, deterministic=self.deterministic)
        out = self._summands(evaluate, x_source, edge_attr, weight)
        if self.aggr == "mean":
            out = out / edges.in_degrees.clamp(min=1).unsqueeze(-1)
        return out

    def _messages_summed(self, x: tuple, graph: Graph, edge_attr: Tensor, weight: Tensor, nodes: tuple) -> Tensor:
        edges, is_usual = graph.edges, self.flow == FLOWS[0]
        if isinstance(edges, Edges):
            edges = torch.stack((edges.source, edges.target) if is_usual else (edges.target, edges.source))
        plain = edges.as_tensor() if isinstance(edges, EdgeIndex) else edges
        if is_plain(plain):
            check_nodes(*(plain if is_usual else plain.flip(0)), *nodes)
        # Of a pair PyG takes the first to be the nodes of row 0, also in the other flow.
        is_pair = x[0] is not x[1] and (is_usual or nodes[0] == nodes[1])
        features, size = x if is_pair else x[0], nodes if is_usual else nodes[::-1]
        edge_attr, weight = edge_attr.to(x[0].dtype), weight.to(x[0].dtype)
        return self.propagate(plain.long(), x=features, edge_attr=edge_attr, weight=weight, size=size)

    def message(self, x_j: Tensor, edge_attr: Tensor, weight: Tensor) -> Tensor:
        return self._reference(x_j, edge_attr, weight)

    def aggregate(
        self, inputs: Tensor, index: Tensor, ptr: Tensor | None = None, dim_size: int | None = None
    ) -> Tensor:
        if self.aggr in SUMS and dim_size is not None:
            return self._reference.scatter(inputs, index, dim_size, "mean" if self.aggr == "mean" else "sum")
        return super().aggregate(inputs, index, ptr, dim_size)

    def __setattr__(self, name: str, value: Any) -> None:
        """As PyG's; but ``aggr`` and ``aggr_module`` of a layer that was made are one aggregation, whichever is set."""
        if name not in ("aggr", "aggr_module") or "backend" not in self.__dict__:
            super().__setattr__(name, value)
            return
        module = aggregation_resolver(known_aggregation(value))
        aggr = [str(each) for each in value] if isinstance(value, (list, tuple)) else str(value)
        backend_for(self.backend, [], aggr)
        super().__setattr__("aggr", aggr)
        super().__setattr__("aggr_module", module)

    def _has_own_messages(self) -> bool:
        """Whether a subclass has a say in messages."""
        methods = "propagate", "message", "aggregate", "update", "message_and_aggregate"
        return any(getattr(type(self), name) is not getattr(TensorProductConv, name) for name in methods)

    def _wants_messages(self) -> bool:
        """Whether somebody wants to see or change messages: an explainer, PyG's hooks, a method or another aggregation
        that was set."""
        return bool(
            self.explain
            or self.aggr not in SUMS
            or self._propagate_forward_pre_hooks
            or self._propagate_forward_hooks
            or self._message_forward_pre_hooks
            or self._message_forward_hooks
            or self._aggregate_forward_pre_hooks
            or self._aggregate_forward_hooks
            or "message" in self.__dict__
            or "aggregate" in self.__dict__
            or "update" in self.__dict__
        )

    def __prepare_scriptable__(self):
        refuse_torchscript(self, is_scripted=True)

    @property
    def problem(self) -> Problem | None:
        """What the kernels are generated from, for float32; None on the reference backend. Where instructions have
        several modes, that of the first."""
        return None if self._summands is None else problem_of(self._summands.descriptions[0], "float32")

    def _checked(
        self, x: Tensor | None, graph: Graph, edge_attr: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Features of the sources, and weights in the shape that the kernels read."""
        edges = graph.num_edges
        x = self._of_shape("x", x, (x.shape[0] if isinstance(x, Tensor) and x.dim() else 0, self._dims[0]))
        self._of_shape("edge_attr", edge_attr, (edges, self._dims[1]))
        shape = (self.weight_numel,) if self.shared_weights else (edges, self.weight_numel)
        if weight is None and not self.weight_numel:
            weight = x.new_empty(shape)
        elif isinstance(weight, Tensor) and self.shared_weights and tuple(weight.shape) == (1, self.weight_numel):
            weight = weight[0]
        weight = self._of_shape("weight", weight, shape)
        device, dtype = x.device, x.dtype
        if dtype not in DTYPES:
            raise TypeError(f"x: dtype {dtype} has no kernel; convert x to float32 or float64")
        for name, tensor in (("edge_attr", edge_attr), ("weight", weight)):
            check_stored(name, tensor, dtype)
        for name, found in (("edge_index", graph.device), ("edge_attr", edge_attr.device), ("weight", weight.device)):
            if found != device:
                raise ValueError(f"{name}: on {found}, but x is on {device}; move it with .to()")
        kind = device.type
        if kind not in ("cuda", "cpu") and self.backend != "reference":
            raise ValueError(f"x: on {device}, which has no kernels; move x, or use backend='reference'")
        if self.backend in ("cuda", "cpu") and kind != self.backend:
            raise ValueError(
                f"x: on {device}, but the layer was made with backend={self.backend!r}; move x, or use 'auto'"
            )
        return x, weight

    def _of_shape(self, name: str, tensor: Tensor | None, expected: tuple[int, ...]) -> Tensor:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: expected a tensor of shape {expected}, got {type(tensor).__name__}")
        if tuple(tensor.shape) != expected:
            raise ValueError(
                f"{name}: expected shape {expected}, got {tuple(tensor.shape)}, in {self} with {self.weight_numel} "
                f"weights {'for all edges' if self.shared_weights else 'an edge'}"
            )
        return tensor

    def __repr__(self) -> str:
        irreps = f"{self.irreps_in} x {self.irreps_edge} -> {self.irreps_out}"
        return f"{self.__class__.__name__}({irreps}, layout={self.layout!r}, backend={self.backend!r})"
