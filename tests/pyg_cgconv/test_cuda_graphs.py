"""Pieces of work that a captured graph may do at the same time."""

import pytest
import torch
from torch.autograd import grad

from pyg_cgconv.cuda_graphs import aside, capturing


def test_outside_of_a_capture_the_function_is_done_at_once(device):
    done = []
    finished = aside(lambda x: done.append(x) or x + 1, torch.ones(2, device=device))
    assert len(done) == 1
    assert torch.equal(finished().cpu(), torch.full((2,), 2.0))
    assert aside(done.append, 1.0)() is None


@pytest.mark.cuda
def test_a_graph_with_branches_computes_the_same_with_its_derivatives():
    torch.manual_seed(0)
    x = torch.randn(300, 300, dtype=torch.float64, device="cuda", requires_grad=True)
    weights = [torch.randn_like(x, requires_grad=True) for _ in range(3)]

    def derivatives():
        branches = [aside(lambda x, w=w: torch.tanh(x @ w) @ w / 300, x) for w in weights]
        y = x.sin()
        for branch in branches:
            y = y * branch()
        (first,) = grad(y.sum(), x, create_graph=True)
        return y, first, *grad(first.square().sum(), [x, *weights])

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        expected = [value.detach().clone() for value in derivatives()]
    torch.cuda.synchronize()
    with capturing(stream) as graph:
        found = derivatives()
    for _ in range(3):
        for value in found:
            value.detach().fill_(torch.nan)
        graph.replay()
        torch.cuda.synchronize()
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)
