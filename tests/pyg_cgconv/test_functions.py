"""Against PyTorch's own functions and finite differences."""

import torch
from torch.autograd import gradcheck, gradgradcheck

from pyg_cgconv._functions import join, scale_each, silu


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()


def test_silu_equals_torchs():
    x = torch.linspace(-40, 40, 4001, dtype=torch.float64).requires_grad_()
    ours, theirs = silu(x), torch.nn.functional.silu(x)
    assert torch.equal(ours, theirs)
    for _ in range(3):
        (ours,), (theirs,) = (torch.autograd.grad(y.sum(), x, create_graph=True) for y in (ours, theirs))
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_derivatives_of_silu():
    assert gradcheck(silu, random(20))
    assert gradgradcheck(silu, random(20))


def test_join_equals_cat():
    blocks = [random(4, 2), random(4, 1), random(4, 3)]
    assert torch.equal(join(blocks), torch.cat(blocks, dim=-1))
    assert join(blocks[:1]) is blocks[0]


def test_derivatives_of_join():
    def squares(*blocks):
        return join([block**2 for block in blocks])

    blocks = random(4, 2), random(4, 1), random(4, 3)
    assert gradcheck(squares, blocks)
    assert gradgradcheck(squares, blocks)


def test_scale_each_and_its_derivatives():
    tensors = random(4, 2), random(3)
    for scaled, tensor, factor in zip(scale_each(tensors, [2.0, -0.5]), tensors, [2.0, -0.5], strict=True):
        assert torch.equal(scaled, factor * tensor)
    assert gradcheck(lambda *t: scale_each(t, [2.0, -0.5]), tensors)
    assert gradgradcheck(lambda *t: scale_each([a**3 for a in t], [2.0, -0.5]), tensors)


def test_under_vmap():
    x = random(5, 3)
    mapped = torch.vmap(torch.func.grad(lambda row: join([silu(row), row]).sum()))(x)
    torch.testing.assert_close(mapped, torch.autograd.grad(silu(x).sum() + x.sum(), x)[0])
