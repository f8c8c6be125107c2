"""Symmetric contractions of rows. They need no graph: on one, its nodes are the rows."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

import numpy as np
import torch
from e3nn import o3
from torch import Tensor
from torch.func import functional_call

from cuda_kernels.powers import multiply_adds

from .. import nn
from ..tensor_product import coefficients_of_weights, describe, polynomial_entries, problem_of, shape
from . import cue, kind
from .graphs import Graph
from .kind import ALL, ORDERS, SITE, Contender, Form, Kind, Missing, Operand, weights

ELEMENTS = 5

COMBINATIONS = {"forward": 1, "backward": 1, "double_backward": 2}
"""Matrix products that each order makes between weights and coefficients. The forward makes coefficients, the backward
gradients of weights. The double backward makes tangents of coefficients and gradients of weights."""


class SymmetricContraction(Kind):
    """Products of a row's features with themselves, channel by channel, with weights by element. Elements are
    drawn at random; a row has the same one on all graphs."""

    what = "symmetric contraction"

    def __init__(self, irreps_in: str, irreps_out: str, correlation: int, graph: Graph):
        super().__init__(Graph(graph.nodes, None))
        self.irreps, self.correlation = (o3.Irreps(irreps_in), o3.Irreps(irreps_out)), correlation
        self.elements = torch.from_numpy(np.random.default_rng(0).integers(ELEMENTS, size=graph.nodes))
        self._combined = coefficients_of_weights(*self.irreps, correlation)  # (paths, entries)
        self._weights = ELEMENTS, len(self._combined), self.irreps[0][0].mul
        self.inputs = Operand(SITE, self.irreps[0]), weights(ALL, torch.Size(self._weights).numel())
        self.output = Operand(SITE, self.irreps[1])

    def on(self, graph: Graph) -> Kind:
        irreps_in, irreps_out = map(str, self.irreps)
        return SymmetricContraction(irreps_in, irreps_out, self.correlation, graph)

    def multiply_adds(self) -> dict[str, int]:
        """Those of the kernels for each row, and those between weights and coefficients, once for all rows."""
        description = describe.polynomial(*self.irreps, self.correlation, ("ir_mul", "ir_mul"))
        problem = problem_of(description, "float32")
        once = self.inputs[1].irreps.dim * self._combined.shape[1]
        return {
            order: self.graph.nodes * multiply_adds(problem, make(problem)) + COMBINATIONS[order] * once
            for order, make in ORDERS.items()
        }

    def ours(self, form: Form) -> Contender:
        layer = nn.SymmetricContraction(*self.irreps, self.correlation, ELEMENTS, layout=form.layout)
        layer, elements = layer.to(form.device, form.dtype), self.elements.to(form.device)

        def run(x: Tensor, w: Tensor) -> Tensor:
            return functional_call(layer, {"weight": w}, (x, elements))

        return Contender(run, form.layout, lambda x, w: (x, w.view(self._weights)))

    def reference(self, form: Form) -> Contender:
        """The coefficient of each monomial times the monomial, one after the other. The coefficients come from e3nn's
        Clebsch-Gordan coefficients."""
        combined, elements = self._combined.to(form.device, form.dtype), self.elements.to(form.device)
        entries = polynomial_entries(*self.irreps, self.correlation)

        def run(x: Tensor, w: Tensor) -> Tensor:
            coefficients = torch.einsum("pq,zpu->qzu", combined, w.view(self._weights))
            features = self._features(x)
            out = [[x.new_zeros(len(x), channels) for _ in range(dim)] for channels, dim in shape(self.irreps[1])]
            for coefficient, (monomial, slot, k) in zip(coefficients, entries, strict=True):
                product = torch.stack([features[slot][..., i] for slot, i in monomial]).prod(0)
                out[slot][k] = out[slot][k] + coefficient[elements] * product
            return torch.cat([torch.stack(components, -1).flatten(1) for components in out], 1)

        return Contender(run)

    def e3nn(self, form: Form, *, compiled: bool = False) -> Contender:
        """MACE's contraction."""
        mace = import_module(".mace_contractions", __package__)
        layer = mace.contraction(*self.irreps, self.correlation, ELEMENTS)
        by_theirs = self._by_theirs(mace.coefficients(layer))
        parts = {name: weight.shape[1] for name, weight in layer.named_parameters()}
        layer = layer.to(form.device, form.dtype)
        one_hot = torch.nn.functional.one_hot(self.elements, ELEMENTS).to(form.device, form.dtype)

        def run(x: Tensor, *w: Tensor) -> Tensor:
            return functional_call(layer, dict(zip(parts, w, strict=True)), (x, one_hot))

        def arranged(x: Tensor, w: Tensor) -> list[Tensor]:
            theirs = by_theirs.to(w) @ w.view(self._weights)
            return [torch.cat(self._features(x), 2), *theirs.split([*parts.values()], 1)]

        how = f"MACE's, {len(by_theirs)} paths"
        return Contender(kind.compiled(run) if compiled else run, arrange=arranged, how=how)

    def cuequivariance(self, form: Form, *, method: str | None = None) -> Contender:
        """With as many weights as there are independent paths. `original_mace` of its layer has MACE's, of which there
        are more, and would make a matrix product to these first."""
        run, how, terms = cue.symmetric(*self.irreps, self.correlation, form, method)
        by_theirs, elements = self._by_theirs(self._coefficients(terms)), self.elements.to(form.device)

        def contracted(x: Tensor, w: Tensor) -> Tensor:
            (out,) = run([w, x], input_indices={0: elements})
            return out

        def arranged(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
            return x, (by_theirs.to(w) @ w.view(self._weights)).flatten(1)

        return Contender(contracted, "ir_mul", arranged, how)

    def _features(self, x: Tensor) -> list[Tensor]:
        """(n, channels, components) of each irrep, of rows in mul_ir."""
        sizes = shape(self.irreps[0])
        blocks = x.split([channels * dim for channels, dim in sizes], 1)
        return [block.unflatten(1, size) for block, size in zip(blocks, sizes, strict=True)]

    def _coefficients(self, terms: Iterable[cue.Term]) -> Tensor:
        """(a peer's paths, entries) of its polynomials; entries that this project has not come last."""
        features, out = ([(slot, i) for slot, (_, ir) in enumerate(of) for i in range(ir.dim)] for of in self.irreps)
        places = {entry: n for n, entry in enumerate(polynomial_entries(*self.irreps, self.correlation))}
        found = [
            (path, places.setdefault((tuple(sorted(features[i] for i in each)), *out[k]), len(places)), factor)
            for path, each, k, factor in terms
        ]
        paths, columns, factors = map(np.array, zip(*found, strict=True))
        result = np.zeros((1 + paths.max(), len(places)))
        np.add.at(result, (paths, columns), factors)
        return torch.from_numpy(result)

    def _by_theirs(self, coefficients: Tensor) -> Tensor:
        """(a peer's paths, this project's): which of a peer's weights make the same polynomials.

        Args:
            coefficients: (a peer's paths, entries), float64; entries that this project has not come last.

        Raises:
            Missing: none make them.
        """
        ours = torch.nn.functional.pad(self._combined, (0, coefficients.shape[1] - self._combined.shape[1]))
        result = torch.linalg.lstsq(coefficients.T, ours.T, driver="gelsd").solution
        if not torch.allclose(coefficients.T @ result, ours.T, rtol=0, atol=1e-6):
            raise Missing("the polynomials are not all equivariant ones")
        return result
