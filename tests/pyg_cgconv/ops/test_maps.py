"""Linear maps with weights of each edge or row, against an einsum for each path."""

import pytest
import torch
from e3nn import o3
from torch.autograd import gradcheck, gradgradcheck

from pyg_cgconv.ops import Edges, contract
from pyg_cgconv.tensor_product import describe
from tests.problems import error
from tests.transforms import TRANSFORMS

NODES = 3


class Case:
    """Paths (u, v, w, slot) to irreps; with a graph, results are sums over the edges of a node."""

    def __init__(self, paths, irreps, layout="mul_ir", on_graph=True, sites=7, dtype=torch.float64, device="cpu"):
        self.paths, self.irreps, self.layout, self.sites = paths, o3.Irreps(irreps), layout, sites
        self.description = describe.maps(paths, self.irreps, layout, on_graph)
        generator = torch.Generator().manual_seed(sites)
        source, self.target = torch.randint(0, NODES, (2, sites), generator=generator).to(device)
        self.edges = Edges((source, self.target), NODES, NODES) if on_graph else None
        features = sum(u * v * self.irreps[slot].ir.dim for u, v, _, slot in paths)
        weights = sum(u * v * w for u, v, w, _ in paths)
        self.x, self.w = (
            torch.randn(sites, length, generator=generator, dtype=dtype).to(device).requires_grad_()
            for length in (features, weights)
        )

    def found(self, x, w):
        return contract(self.description, (x, w), self.edges)

    def expected(self, x, w):
        blocks = [x.new_zeros(self.sites, mul, ir.dim) for mul, ir in self.irreps]
        start = first = 0
        for u, v, mul, slot in self.paths:
            dim = self.irreps[slot].ir.dim
            features = x[:, start : start + u * v * dim].reshape(self.sites, v, dim, u)
            weights = w[:, first : first + u * v * mul].reshape(self.sites, u, v, mul)
            blocks[slot] = blocks[slot] + torch.einsum("evku,euvw->ewk", features, weights)
            start, first = start + u * v * dim, first + u * v * mul
        rows = [block if self.layout == "mul_ir" else block.mT for block in blocks]
        result = torch.cat([row.flatten(1) for row in rows], 1)
        if self.edges is None:
            return result
        return result.new_zeros(NODES, result.shape[1]).index_add(0, self.target, result)


def check(case: Case, tolerance: float, orders: int = 3) -> None:
    """Derivatives of every order with respect to all that they depend on."""
    both = zip(derivatives(case.found, case, orders), derivatives(case.expected, case, orders), strict=True)
    for order, (found, expected) in enumerate(both):
        assert all(error(a, b) < tolerance for a, b in zip(found, expected, strict=True)), (order, case.description)


def derivatives(function, case: Case, orders: int):
    generator = torch.Generator(case.x.device).manual_seed(1)

    def like(tensor):
        new = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype, device=tensor.device)
        return new.requires_grad_()

    inputs, outputs = [case.x, case.w], (function(case.x, case.w),)
    yield outputs
    for _ in range(orders):
        cotangents = [like(output) for output in outputs]
        inputs, before = [*inputs, *cotangents], inputs
        outputs = torch.autograd.grad(outputs, before, cotangents, create_graph=True)
        yield outputs


WIDE = ((10, 1, 10, 0), (9, 2, 35, 1)), "10x1o+35x0e"
ODD = ((3, 1, 5, 0), (4, 2, 7, 1), (2, 1, 5, 0)), "5x0e+7x1o+2x0o"
ALIKE = ((4, 1, 8, 0), (4, 1, 8, 1), (4, 1, 8, 0), (40, 1, 8, 1)), "8x1o+8x1e"


@pytest.mark.parametrize(
    ("case", "on_graph", "layout"),
    [
        pytest.param(WIDE, True, "mul_ir", id="more channels than a warp reads", marks=pytest.mark.thorough),
        pytest.param(ODD, True, "mul_ir", id="a slot of two paths, one without any"),
        pytest.param(ODD, False, "ir_mul", id="a slot of two paths, one without any, rows"),
        pytest.param(ALIKE, False, "mul_ir", id="paths that differ in places, rows"),
    ],
)
def test_derivatives_to_third_order(device, case, on_graph, layout):
    check(Case(*case, layout, on_graph, device=device), 1e-12)


@pytest.mark.slow
def test_derivatives_are_those_of_finite_differences(device):
    case = Case(((2, 2, 3, 0),), "3x1o", sites=3, device=device)
    assert gradcheck(case.found, (case.x, case.w))
    assert gradgradcheck(case.found, (case.x, case.w))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_every_transform(device, name):
    case = Case(((2, 1, 3, 0), (3, 1, 2, 1)), "3x1o+2x0e", sites=4, device=device)
    inputs = [case.x.detach(), case.w.detach()]
    changes = [torch.randn_like(t) for t in inputs]
    cotangent = torch.randn_like(case.expected(*inputs))
    found, expected = (TRANSFORMS[name](f, inputs, changes, cotangent) for f in (case.found, case.expected))
    torch.testing.assert_close(found, expected)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("case", "on_graph", "options"),
    [
        pytest.param(ODD, True, {"row_edges": 2}, id="nodes in several rows"),
        pytest.param(ODD, False, {"walks": 2}, id="several sites a row"),
        pytest.param(ALIKE, True, {}, id="paths that differ in places"),
        pytest.param(WIDE, False, {"misaligned": 4}, id="more channels than a warp reads, misaligned"),
    ],
)
def test_on_a_gpus_emulator(case, on_graph, options):
    pytest.importorskip("numba_cuda", reason="the CUDA kernels' compiler is not installed")
    from tests.emulated import emulated_gpu

    with emulated_gpu(**options):
        check(Case(*case, "mul_ir", on_graph, sites=4), 1e-12, orders=2)
        check(Case(*case, "ir_mul", on_graph, sites=4, dtype=torch.float32), 1e-4, orders=1)
