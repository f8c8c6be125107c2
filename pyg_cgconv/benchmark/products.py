"""Tensor products whose paths all have mode "uvu" or all "uvw": of rows, and summed over the edges of a graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from typing import Any

import torch
from e3nn import o3
from torch import Tensor

from cuda_kernels.operations import multiply_adds

from ..nn import FullyConnectedTensorProduct, TensorProduct, TensorProductConv
from ..tensor_product import ReferenceProduct, channelwise, problem_of, summands, tensor_product
from . import cue, kind
from .graphs import Graph
from .kind import ALL, NODE, ORDERS, SITE, Contender, Form, Kind, Missing, Operand, weights

MIXES = {"forward": 1, "backward": 2, "double_backward": 5}
"""Matrix products that each order makes where the forward makes one, out = W z. The backward makes the gradients of W
and z. With tangents W' and z', the double backward makes W'z + Wz' and the gradients of W, z and z'."""

_UNCOMPILED: dict[str, Any] = {"compile_left_right": False, "compile_right": False}  # only paths are read


UVU, UVW = "uvu", "uvw"
"""Modes of the problems."""


@dataclass(frozen=True)
class Product:
    """Irreps and paths, and whether there is one row of weights for all; hashable, so that what is made of it is kept.

    Attributes:
        instructions: e3nn's, with five fields.
    """

    irreps_in: o3.Irreps
    irreps_edge: o3.Irreps
    irreps_out: o3.Irreps
    instructions: tuple[tuple, ...]
    shared_weights: bool

    @property
    def irreps(self) -> tuple[o3.Irreps, o3.Irreps, o3.Irreps]:
        return self.irreps_in, self.irreps_edge, self.irreps_out

    @property
    def mode(self) -> str:
        return self.instructions[0][3]

    @property
    def weight_numel(self) -> int:
        return _e3nn(self).weight_numel


def channelwise_product(irreps_in: str, irreps_edge: str, irreps_kept: str) -> Product:
    """All paths to irreps that are kept, mode "uvu", each with an output slot of its own."""
    left, right = o3.Irreps(irreps_in), o3.Irreps(irreps_edge)
    out, instructions = channelwise(left, right, o3.Irreps(irreps_kept))
    return Product(left, right, out, tuple(instructions), shared_weights=False)


def fully_connected_product(irreps_in: str, irreps_edge: str, irreps_out: str, *, shared_weights: bool) -> Product:
    """All paths, mode "uvw"."""
    product = o3.FullyConnectedTensorProduct(irreps_in, irreps_edge, irreps_out, **_UNCOMPILED)
    irreps = product.irreps_in1, product.irreps_in2, product.irreps_out
    return Product(*irreps, tuple(tuple(i[:5]) for i in product.instructions), shared_weights)


@cache
def _e3nn(product: Product) -> o3.TensorProduct:
    """Normalised instructions and the number of weights."""
    return tensor_product(
        *product.irreps,
        product.instructions,
        shared_weights=product.shared_weights,
        **_UNCOMPILED,
    )


@cache
def _reference(product: Product) -> ReferenceProduct:
    """e3nn's product, which takes seconds to generate its code: once for all who use it."""
    return ReferenceProduct(*product.irreps, product.instructions, "mul_ir", product.shared_weights)


class RowProduct(Kind):
    """The product of rows."""

    what = "product of rows"
    has_forces = True

    def __init__(self, product: Product, graph: Graph):
        super().__init__(graph)
        self.product = product
        self.inputs = (
            Operand(SITE, product.irreps_in),
            Operand(SITE, product.irreps_edge),
            weights(ALL if product.shared_weights else SITE, product.weight_numel),
        )
        self.output = Operand(SITE, product.irreps_out)

    def on(self, graph: Graph) -> Kind:
        return type(self)(self.product, graph)

    def multiply_adds(self) -> dict[str, int]:
        """Those of the kernels at each site, and those that mix channels: at each site, too, or, if weights are shared,
        at each row of the output."""
        product = _e3nn(self.product)
        known = summands(product, "mul_ir", on_graph=False)
        assert known is not None, "there are paths with channels"
        problem = problem_of(known.descriptions[0], "float32")
        counts = {order: self.graph.sites * multiply_adds(problem, make(problem)) for order, make in ORDERS.items()}
        if self.product.mode == UVU:
            return counts
        rows = self.output.shape(self.graph)[0] if self.product.shared_weights else self.graph.sites
        return {order: count + MIXES[order] * rows * _mixing(product) for order, count in counts.items()}

    def ours(self, form: Form) -> Contender:
        if form.layout != "mul_ir":
            raise Missing("pyg_cgconv multiplies rows in mul_ir only")
        options = dict(shared_weights=self.product.shared_weights, internal_weights=False)
        if self.product.mode == UVW:
            layer = FullyConnectedTensorProduct(*self.product.irreps, **options)
        else:
            layer = TensorProduct(*self.product.irreps, self.product.instructions, **options)
        return Contender(layer.to(form.device, form.dtype))

    def e3nn(self, form: Form, *, compiled: bool = False) -> Contender:
        product = _reference(self.product)
        return Contender(kind.compiled(product.product(form.dtype, form.device)) if compiled else product)

    def cuequivariance(self, form: Form, *, method: str | None = None) -> Contender:
        run, how = self._cuequivariance(form, method)

        def multiplied(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
            (out,) = run([w[None] if self.product.shared_weights else w, x, y])
            return out

        return Contender(multiplied, "ir_mul", how=how)

    def _cuequivariance(self, form: Form, method: str | None) -> tuple[Callable, str]:
        if self.product.mode == UVU:
            return cue.channelwise(*self.product.irreps, form, method)
        return cue.fully_connected(*self.product.irreps, form, method, self.product.shared_weights)

    def openequivariance(self, form: Form, *, deterministic: bool = False) -> Contender:
        if deterministic:
            raise Missing("openequivariance adds no rows up: there is nothing that deterministic would change")
        oeq, problem, layout = self._openequivariance(form)
        run = oeq.TensorProduct(problem)
        return Contender(run, layout, partial(_reordered, run))

    def _openequivariance(self, form: Form) -> tuple:
        """The library, its problem, and the layout."""
        if form.device.type != "cuda":
            raise Missing("openequivariance has no CPU kernels")
        oeq = import_module("openequivariance")
        number = oeq.torch_to_oeq_dtype(form.dtype)
        layout = form.layout if self.product.mode == UVU else "mul_ir"  # it knows no other for uvw
        problem = oeq.TPProblem(
            *map(str, self.product.irreps),
            list(self.product.instructions),  # without e3nn's coefficients, which it makes itself
            shared_weights=self.product.shared_weights,
            internal_weights=False,
            irrep_dtype=number,
            weight_dtype=number,
            layout=layout,
        )
        return oeq, problem, layout


class Convolution(RowProduct):
    """The product of gathered node features with those of edges, summed over the edges to a node."""

    what = "convolution"

    def __init__(self, product: Product, graph: Graph):
        super().__init__(product, graph)
        self.inputs = (self.inputs[0]._replace(of=NODE), *self.inputs[1:])
        self.output = self.output._replace(of=NODE)

    def ours(self, form: Form) -> Contender:
        layer = TensorProductConv(
            *self.product.irreps,
            self.product.instructions,
            layout=form.layout,
            shared_weights=self.product.shared_weights,
        )
        return Contender(lambda x, y, w: layer(x, self.graph.edge_index, y, w), form.layout)

    def e3nn(self, form: Form, *, compiled: bool = False) -> Contender:
        """Scattered by torch_scatter, or by PyTorch where that is not installed."""
        return self._around(super().e3nn(form, compiled=compiled))

    def cuequivariance(self, form: Form, *, method: str | None = None) -> Contender:
        """NVIDIA's uniform_1d kernel with gather and scatter inside, as MACE calls it, or else one with PyTorch's
        around it."""
        if self.product.mode != UVU or method not in (None, "uniform_1d"):
            return self._around(super().cuequivariance(form, method=method))
        run, how = self._cuequivariance(form, method)
        source, target = (row.contiguous() for row in self._edges)

        def convolve(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
            (out,) = run([w, x, y], input_indices={1: source}, output_indices={0: target}, output_shapes={0: x})
            return out

        return Contender(convolve, "ir_mul", how=how)

    def openequivariance(self, form: Form, *, deterministic: bool = False) -> Contender:
        """The fused kernel, which adds with atomics or, if deterministic, along the sorted edges and their reverses."""
        oeq, problem, layout = self._openequivariance(form)
        if deterministic and self.product.shared_weights:
            raise Missing("openequivariance, deterministic, has no shared weights")
        reversed_edges = reverses(self._edges) if deterministic else None
        run = oeq.TensorProductConv(problem, deterministic=deterministic)
        source, target = self._edges
        return Contender(lambda x, y, w: run(x, y, w, target, source, reversed_edges), layout, partial(_reordered, run))

    @property
    def _edges(self) -> Tensor:
        assert self.graph.edge_index is not None, "a convolution is on a graph"
        return self.graph.edge_index

    def _around(self, rows: Contender) -> Contender:
        """Gather and scatter around a product of rows."""
        source, target = self._edges

        def convolve(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
            messages = rows.run(x.index_select(0, source), y, w)
            return ReferenceProduct.scatter(messages, target, self.graph.nodes, "sum")

        return Contender(convolve, rows.layout, how=rows.how)


def reverses(edge_index: Tensor) -> Tensor:
    """Where each edge's reverse stands (E,), in a symmetric graph sorted by target, then source; deterministic
    OpenEquivariance computes wrong gradients on others, without a word.

    Raises:
        Missing: it is another graph.
    """
    found = edge_index[0].argsort(stable=True)
    if not torch.equal(edge_index[:, found], edge_index.flip(0)):
        raise Missing("openequivariance, deterministic, takes only symmetric graphs sorted by target, then source")
    return found


def _reordered(run, x: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """OpenEquivariance's own order of weights."""
    return x, y, run.reorder_weights_from_e3nn(w, has_batch_dim=w.dim() == 2)


def _mixing(product: o3.TensorProduct) -> int:
    """Multiply-adds that mix the channels of a row once: of a path's input or its output, whichever has fewer
    components."""
    dims = (
        (i.path_shape, product.irreps_in1[i.i_in1].ir.dim, product.irreps_out[i.i_out].ir.dim)
        for i in product.instructions
    )
    return sum(u * v * w * min(dim_in, dim_out) for (u, v, w), dim_in, dim_out in dims)
