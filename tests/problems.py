"""Convolutions to test with: the named ones of published models, random ones, and a slow obvious oracle."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from e3nn import o3
from hypothesis import strategies as st
from torch import Tensor

from cuda_kernels.contraction import backward, double_backward, forward
from cuda_kernels.problem import Channels, Index, Operand, Path, Problem, Row
from pyg_cgconv import TensorProductConv
from pyg_cgconv.benchmark.problems import PROBLEMS


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
    """A convolution and float64 inputs for it."""

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

    def oracle(self, x: Tensor, edge_attr: Tensor, weight: Tensor) -> Tensor:
        """e3nn's tensor product in float64 on gathered features, added up edge by edge."""
        torch.set_default_dtype(torch.float64)  # e3nn keeps its coefficients at the default dtype of this moment
        try:
            product = o3.TensorProduct(
                self.irreps_in,
                self.irreps_edge,
                self.irreps_out,
                self.instructions,
                shared_weights=self.shared_weights,
                internal_weights=False,
            )
        finally:
            torch.set_default_dtype(torch.float32)
        if self.layout == "ir_mul":
            x, edge_attr = swapped(x, self.irreps_in, True), swapped(edge_attr, self.irreps_edge, True)
        source, target = self.edge_index
        messages = product(x[source], edge_attr, weight)
        out = torch.zeros(self.targets, self.irreps_out.dim, dtype=x.dtype).index_add(0, target, messages)
        return swapped(out, self.irreps_out, False) if self.layout == "ir_mul" else out


def swapped(features: Tensor, irreps: o3.Irreps, component_major: bool) -> Tensor:
    """Rows brought from (component, channel) to (channel, component) order, or back, number by number."""
    order, start = [], 0
    for multiplicity, ir in irreps:
        for u in range(multiplicity):
            order += [start + i * multiplicity + u for i in range(ir.dim)]
        start += multiplicity * ir.dim
    order = torch.tensor(order, dtype=torch.long)
    return features[:, order] if component_major else features[:, order.argsort()]


_MULTIPLICITIES = [1, 2, 5, 7, 16, 32, 33, 48, 64, 100]


@st.composite
def cases(draw, max_l: int = 3, most: int = 100, most_paths: int = 6) -> Case:
    """Random uvu convolutions, of up to so many channels and paths, on random bipartite graphs."""

    def irreps(multiplicity, low: int, high: int) -> o3.Irreps:
        one = st.tuples(multiplicity, st.tuples(st.integers(0, max_l), st.sampled_from([-1, 1])))
        return o3.Irreps(draw(st.lists(one, min_size=low, max_size=high)))

    channels = st.sampled_from([mul for mul in _MULTIPLICITIES if mul <= most])
    irreps_in, irreps_edge = irreps(channels, 1, 3), irreps(st.integers(1, 2), 1, 3)
    paths = [(i, j, ir) for i, a in enumerate(irreps_in) for j, b in enumerate(irreps_edge) for ir in a.ir * b.ir]
    paths = draw(st.lists(st.sampled_from(paths), min_size=1, max_size=most_paths))
    # Each path gets a slot of its own, or shares one that fits; slots are in any order, and one is left without a path.
    slots: list = [(3, o3.Irrep("1e"))]
    instructions = []
    for i, j, ir in paths:
        slot = (irreps_in[i].mul, ir)
        if slot not in slots[1:] or draw(st.booleans()):
            slots.append(slot)
        position = draw(st.sampled_from([n for n, s in enumerate(slots) if n and s == slot]))
        instructions.append(
            (i, j, position, "uvu", draw(st.booleans()) or not instructions, draw(st.sampled_from([1.0, 0.3])))
        )
    case = Case(
        irreps_in,
        irreps_edge,
        o3.Irreps(slots),
        instructions,
        draw(st.sampled_from(["mul_ir", "ir_mul"])),
        draw(st.sampled_from([False, False, True])),
        *[None] * 4,
        draw(st.integers(0, 9)),
    )
    fill(case, draw(st.integers(1, 9)), draw(st.integers(0, 30)) if case.targets else 0, draw(st.integers(0, 2**31)))
    return case


MODES = ("uvu", "uvv", "uvw", "uuu", "uuw", "uvuv", "uvu<v", "u<vw")


@st.composite
def mixtures(draw, modes: tuple[str, ...] = MODES) -> Case:
    """Random products whose paths have several of e3nn's modes, on random bipartite graphs.

    Paths share output slots where they can; one slot is left without a path.
    """
    irreps = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([-1, 1])), min_size=1, max_size=2)
    channels = draw(st.sampled_from([2, 3, 5, 16]))
    irreps_in, irreps_edge = (
        o3.Irreps([(channels if n == 0 else draw(st.sampled_from([1, 2, channels])), ir) for n, ir in enumerate(found)])
        for found in (draw(irreps), draw(irreps))
    )
    slots: list = [(3, o3.Irrep("4e"))]
    instructions: list[tuple] = []
    for mode in draw(st.lists(st.sampled_from(modes), min_size=2, max_size=3)):
        paths = [
            (i, j, ir, a.mul, b.mul)
            for i, a in enumerate(irreps_in)
            for j, b in enumerate(irreps_edge)
            for ir in a.ir * b.ir
            if (mode.startswith("uv") and mode != "uvu<v") or a.mul == b.mul > 1
        ]
        i, j, ir, u, v = draw(st.sampled_from(paths))
        has_weight = mode in ("uvw", "u<vw") or not instructions or draw(st.booleans())
        mixed = draw(st.sampled_from([1, 4])) if has_weight else 1
        w = {"uvv": v, "uvuv": u * v, "uvu<v": u * (u - 1) // 2, "uvw": mixed, "uuw": mixed, "u<vw": mixed}.get(mode, u)
        fitting = [n for n, slot in enumerate(slots) if slot == (w, ir)]
        if not fitting or draw(st.booleans()):
            fitting = [len(slots)]
            slots.append((w, ir))
        weight = draw(st.sampled_from([1.0, 0.3]))
        instructions.append((i, j, draw(st.sampled_from(fitting)), mode, has_weight, weight))
    case = Case(
        irreps_in,
        irreps_edge,
        o3.Irreps(slots),
        instructions,
        draw(st.sampled_from(["mul_ir", "ir_mul"])),
        draw(st.booleans()),
        *[None] * 4,
        targets=4,
    )
    fill(case, sources=3, edges=draw(st.sampled_from([0, 7])), seed=draw(st.integers(0, 2**31)))
    return case


def fill(case: Case, sources: int, edges: int, seed: int) -> None:
    """Random features and edges."""
    case.filled = sources, edges, seed
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weights = case.layer(backend="reference").weight_numel
    case.x, case.edge_attr = random(sources, case.irreps_in.dim), random(edges, case.irreps_edge.dim)
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
