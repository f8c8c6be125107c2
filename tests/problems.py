"""Products to test with: the named ones of published models, any list of paths, and a slow obvious oracle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from e3nn import o3
from torch import Tensor

from cuda_kernels.contraction import backward, double_backward, forward
from cuda_kernels.problem import Channels, Index, Operand, Path, Problem, Row
from pyg_cgconv import TensorProduct, TensorProductConv
from pyg_cgconv.benchmark.problems import PROBLEMS
from tests.rotations import float64


def named(name: str, **options) -> TensorProductConv:
    return TensorProductConv(*PROBLEMS[name], **options)


def convolution(x: Row, y: Row, w: Row, g: Row, paths: tuple[Path, ...], dtype: str = "float32") -> Problem:
    """A problem made by hand."""
    operands = (
        Operand("g", g, Index.TARGET),
        Operand("x", x, Index.SOURCE),
        Operand("y", y, Index.EDGE, Channels.NONE),
        Operand("w", w, Index.EDGE),
    )
    return Problem(operands, ("g", "x", "y", "w"), paths, dtype)


FORWARD, BACKWARD, DOUBLE_BACKWARD = (
    order(named("nequip-water").problem) for order in (forward, backward, double_backward)
)
"""Contractions of every convolution."""


@dataclass
class Case:
    """A convolution, or without a graph a product of rows in mul_ir, and float64 inputs for it."""

    irreps_in: o3.Irreps
    irreps_edge: o3.Irreps
    irreps_out: o3.Irreps
    instructions: list[tuple]
    layout: str
    shared_weights: bool
    x: Tensor = field(repr=False)
    edge_index: Tensor = field(repr=False)
    edge_attr: Tensor = field(repr=False)
    weight: Tensor = field(repr=False)
    targets: int
    on_graph: bool = True
    filled: tuple[int, int, int] | None = None  # sources, edges and seed, as :func:`fill` got them

    def layer(self, **options) -> TensorProductConv:
        return TensorProductConv(
            self.irreps_in,
            self.irreps_edge,
            self.irreps_out,
            self.instructions,
            layout=self.layout,
            shared_weights=self.shared_weights,
            **options,
        )

    @property
    def size(self) -> tuple[int, int]:
        return self.x.shape[0], self.targets

    def inputs(self, device="cpu", dtype=torch.float64) -> list[Tensor]:
        return [t.to(device, dtype, copy=True).requires_grad_() for t in (self.x, self.edge_attr, self.weight)]

    def computed(self, device="cpu", **options) -> Callable[..., Tensor]:
        """The product by the kernels of a device, of x, edge_attr and, unless no path has any, weight."""
        if not self.on_graph:
            return TensorProduct(*self._arguments, shared_weights=self.shared_weights, internal_weights=False)
        layer, edge_index = self.layer(backend=torch.device(device).type, **options), self.edge_index.to(device)

        def convolution(x: Tensor, edge_attr: Tensor, weight: Tensor | None = None) -> Tensor:
            return layer((x, None), edge_index, edge_attr, weight, size=self.size)

        return convolution

    def oracle(self, x: Tensor, edge_attr: Tensor, weight: Tensor | None = None) -> Tensor:
        """e3nn's tensor product in float64 on gathered features, added up edge by edge."""
        with float64():
            product = o3.TensorProduct(*self._arguments, shared_weights=self.shared_weights, internal_weights=False)
        if not self.on_graph:
            return product(x, edge_attr, weight)
        if self.layout == "ir_mul":
            x, edge_attr = swapped(x, self.irreps_in, True), swapped(edge_attr, self.irreps_edge, True)
        source, target = self.edge_index
        messages = product(x[source], edge_attr, weight)
        out = torch.zeros(self.targets, self.irreps_out.dim, dtype=x.dtype).index_add(0, target, messages)
        return swapped(out, self.irreps_out, False) if self.layout == "ir_mul" else out

    @property
    def _arguments(self) -> tuple:
        return self.irreps_in, self.irreps_edge, self.irreps_out, self.instructions


def swapped(features: Tensor, irreps: o3.Irreps, component_major: bool) -> Tensor:
    """Rows brought from (component, channel) to (channel, component) order, or back, number by number."""
    order, start = [], 0
    for multiplicity, ir in irreps:
        for u in range(multiplicity):
            order += [start + i * multiplicity + u for i in range(ir.dim)]
        start += multiplicity * ir.dim
    order = torch.tensor(order, dtype=torch.long)
    return features[:, order] if component_major else features[:, order.argsort()]


def fill(case: Case, sources: int, edges: int, seed: int) -> None:
    """Random features and edges; without a graph there are as many rows as edges."""
    case.filled = sources, edges, seed
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weights = case.layer(backend="reference").weight_numel
    case.x = random(sources if case.on_graph else edges, case.irreps_in.dim)
    case.edge_attr = random(edges, case.irreps_edge.dim)
    case.weight = random(weights) if case.shared_weights else random(edges, weights)
    ends = [torch.randint(max(1, n), (edges,), generator=generator) for n in (sources, case.targets)]
    case.edge_index = torch.stack(ends)


def error(result: Tensor, expected: Tensor) -> float:
    """The norm of the difference over the norm of the expected (1 where that is zero)."""
    result = result.detach().to("cpu", torch.float64)
    expected = expected.detach().cpu()
    if not result.isfinite().all() or result.shape != expected.shape:
        return float("inf")
    return ((result - expected).norm() / (expected.norm() or 1.0)).item()
