"""What serves in a captured graph, against what serves elsewhere, PyTorch's own functions, and finite differences."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch_geometric.data import Data

from pyg_cgconv import Potential, RadiusGraph
from pyg_cgconv._functions import Join, ScaleEach, join, scale_each
from pyg_cgconv.nn import _linear, _radial, _spherical
from pyg_cgconv.tensor_product import _layout


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()


def test_join_equals_cat():
    blocks = [random(4, 2), random(4, 1), random(4, 3)]
    for joined in (Join.apply(*blocks), join(blocks)):
        assert torch.equal(joined, torch.cat(blocks, dim=-1))
    assert join(blocks[:1]) is blocks[0]


def test_derivatives_of_join():
    def squares(*blocks):
        return Join.apply(*(block**2 for block in blocks))

    blocks = random(4, 2), random(4, 1), random(4, 3)
    assert gradcheck(squares, blocks)
    assert gradgradcheck(squares, blocks)


def test_scale_each_and_its_derivatives():
    tensors, factors = (random(4, 2), random(3)), (2.0, -0.5)
    for scaled in (ScaleEach.apply(factors, *tensors), scale_each(tensors, factors)):
        assert all(torch.equal(a, f * t) for a, f, t in zip(scaled, factors, tensors, strict=True))
    assert gradcheck(lambda *t: ScaleEach.apply(factors, *t), tensors)
    assert gradgradcheck(lambda *t: ScaleEach.apply(factors, *(a**3 for a in t)), tensors)


def test_under_vmap():
    x = random(5, 3)
    mapped = torch.vmap(torch.func.grad(lambda row: Join.apply(row.square(), row).sum()))(x)
    torch.testing.assert_close(mapped, 2 * x + 1)


@pytest.mark.slow
def test_a_potential_learns_the_same_by_either(monkeypatch):
    torch.manual_seed(0)
    potential = Potential(["H", "O"], 3.0, channels=4, lmax=2, layers=2, dtype="float64")
    frame = Data(z=torch.tensor([1, 8, 1, 1]), pos=1.5 * torch.rand(4, 3, dtype=torch.float64))
    frame = RadiusGraph(3.0)(frame)

    def gradients():
        out = potential(frame)
        return torch.autograd.grad(out["energy"].sum() ** 2 + out["forces"].square().sum(), potential.parameters())

    expected = gradients()
    for module in (_layout, _linear, _radial, _spherical):
        for name, function in (
            ("join", lambda blocks: blocks[0] if len(blocks) == 1 else Join.apply(*blocks)),
            ("scale_each", lambda tensors, factors: ScaleEach.apply(tuple(factors), *tensors)),
        ):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, function)
    for short, long in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(short, long, rtol=1e-10, atol=1e-12)


@pytest.mark.cuda
def test_a_captured_graph_gets_the_short_derivatives():
    x = random(20).detach().cuda().requires_grad_()

    def made_by():
        return [type(t.grad_fn).__name__ for t in (join([x, x]), scale_each([x], [2.0])[0])]

    assert made_by() == ["CatBackward0", "MulBackward0"]
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        assert made_by() == ["JoinBackward", "ScaleEachBackward"]
