"""Linear maps of rows, and products of rows with themselves. Neither needs a graph: on one, its nodes are the rows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from e3nn import o3
from torch import Tensor
from torch.func import functional_call

from cuda_kernels.operations import multiply_adds

from .. import nn
from ..tensor_product import ReferenceProduct, describe, problem_of
from . import cue, kind
from .graphs import Graph
from .kind import ALL, ORDERS, SITE, Contender, Form, Kind, Missing, Operand, weights

MAPS = {"forward": 1, "backward": 2, "double_backward": 4}
"""Matrix products that each order makes where the forward makes one, out = W x. The backward makes the gradients of W
and x. With tangents W' and x', the double backward makes W'x + Wx' and the gradients of W and x."""


class LinearMap(Kind):
    """Mixes the channels of equal irreps, with weights for all rows."""

    what = "linear map"

    def __init__(self, irreps_in: str, irreps_out: str, graph: Graph):
        super().__init__(Graph(graph.nodes, None))
        self.irreps = irreps_in, irreps_out
        self._layer = o3.Linear(irreps_in, irreps_out, internal_weights=False, shared_weights=True)
        self.inputs = Operand(SITE, self._layer.irreps_in), weights(ALL, self._layer.weight_numel)
        self.output = Operand(SITE, self._layer.irreps_out)

    def on(self, graph: Graph) -> Kind:
        return LinearMap(*self.irreps, graph)

    def multiply_adds(self) -> dict[str, int]:
        dims = ((i.path_shape, self._layer.irreps_in[i.i_in].ir.dim) for i in self._layer.instructions)
        once = self.graph.nodes * sum(u * v * dim for (u, v), dim in dims)
        return {order: MAPS[order] * once for order in ORDERS}

    def ours(self, form: Form) -> Contender:
        layer = nn.Linear(*self.irreps, layout=form.layout, fused=True).to(form.device, form.dtype)
        names = [name for name, _ in layer.named_parameters()]

        def run(x: Tensor, *matrices: Tensor) -> Tensor:
            return functional_call(layer, dict(zip(names, matrices, strict=True)), (x,))

        return Contender(run, form.layout, self._matrices)

    def _matrices(self, x: Tensor, w: Tensor) -> Sequence[Tensor]:
        """This project's weights: one matrix for each output irrep, where e3nn has one for each path."""
        paths = self._layer.instructions
        blocks = w.split([u * v for u, v in (i.path_shape for i in paths)])
        matrices = [(i.i_out, block.view(i.path_shape)) for i, block in zip(paths, blocks, strict=True)]
        slots = range(len(self._layer.irreps_out))
        return x, *(torch.cat([matrix for slot, matrix in matrices if slot == wanted]) for wanted in slots)

    def e3nn(self, form: Form, *, compiled: bool = False) -> Contender:
        layer = self._layer.to(form.device, form.dtype)
        return Contender(kind.compiled(layer) if compiled else layer)

    def cuequivariance(self, form: Form, *, method: str | None = None) -> Contender:
        run, how = cue.linear(self._layer.irreps_in, self._layer.irreps_out, form, method)

        def mapped(x: Tensor, w: Tensor) -> Tensor:
            (out,) = run([w[None], x])
            return out

        return Contender(mapped, "ir_mul", how=how)


class Square(Kind):
    """Products of a row's irreps with each other, channel by channel, without weights."""

    what = "product of a row with itself"

    def __init__(self, irreps: str, irreps_kept: str, graph: Graph):
        super().__init__(Graph(graph.nodes, None))
        self.irreps = irreps, irreps_kept
        self._layer = _node_products(irreps, irreps_kept)
        self.inputs = (Operand(SITE, self._layer.factors),)
        self.output = Operand(SITE, self._layer.irreps_products)

    def on(self, graph: Graph) -> Kind:
        return Square(*self.irreps, graph)

    def multiply_adds(self) -> dict[str, int]:
        problem = problem_of(describe.square(self._product), "float32")
        return {order: self.graph.nodes * multiply_adds(problem, make(problem)) for order, make in ORDERS.items()}

    def ours(self, form: Form) -> Contender:
        if form.layout != "ir_mul":
            raise Missing("pyg_cgconv multiplies rows with themselves in ir_mul only")
        return Contender(self._layer.multiplied, form.layout)

    def e3nn(self, form: Form, *, compiled: bool = False) -> Contender:
        product = _reference(*self.irreps).product(form.dtype, form.device)
        run = kind.compiled(product) if compiled else product
        return Contender(lambda x: run(x, x))

    def cuequivariance(self, form: Form, *, method: str | None = None) -> Contender:
        product, factors = self._product, self._layer.factors
        paths = [(i.i_in1, i.i_in2, product.irreps_out[i.i_out].ir, i.path_weight) for i in self._product.instructions]
        run, how = cue.square(factors, paths, form, method)

        def squared(x: Tensor) -> Tensor:
            (out,) = run([x])
            return out

        return Contender(squared, "ir_mul", how=how)

    @property
    def _product(self) -> o3.TensorProduct:
        return _reference(*self.irreps).product(torch.float64, torch.device("cpu"))


@cache
def _node_products(irreps: str, irreps_kept: str) -> nn.NodeProducts:
    return nn.NodeProducts(irreps, o3.Irreps(irreps)[0].mul, irreps_kept)


@cache
def _reference(irreps: str, irreps_kept: str) -> ReferenceProduct:
    layer = _node_products(irreps, irreps_kept)
    arguments = layer.factors, layer.factors, layer.slots, layer.instructions
    return ReferenceProduct(*arguments, "mul_ir", shared_weights=True)
