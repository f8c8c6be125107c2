"""What else autograd does around an operation: checks, hooks, checkpoints, several threads."""

import threading

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, jacrev, vmap
from torch.utils.checkpoint import checkpoint

from pyg_cgconv.nn import NodeProducts
from tests.pyg_cgconv.ops.test_transforms import assert_equal, both, on_graph, problem
from tests.transforms import TRANSFORMS, leaves, squared


@pytest.mark.thorough
def test_checks_of_the_convolution(device):
    layer, _ = both()
    inputs, _, edge_index = problem(layer, 2, 1, 2, device)
    f, x = on_graph(layer, edge_index, (2, 1)), leaves(inputs)
    options = {"check_batched_grad": True, "nondet_tol": 1e-12}
    assert gradcheck(f, x, check_forward_ad=True, check_batched_forward_grad=True, **options)
    assert gradgradcheck(f, x, check_fwd_over_rev=True, check_rev_over_rev=True, **options)


@pytest.mark.slow
def test_checks_of_products(device):
    products = NodeProducts("1x0e+1x1o", 1, "0e").to(device).double()
    x = torch.randn(2, 4, dtype=torch.float64, device=device, requires_grad=True)
    options = {"check_batched_grad": True, "nondet_tol": 1e-12}
    assert gradcheck(products, x, check_forward_ad=True, check_batched_forward_grad=True, **options)
    assert gradgradcheck(products, x, check_fwd_over_rev=True, check_rev_over_rev=True, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_every_transform_of_products(device, name):
    fused, reference = (
        NodeProducts("2x0e+2x1o", 2, "0e+1o", fused=fused).to(device).double() for fused in (True, False)
    )
    reference.load_state_dict(fused.state_dict())
    x, change = (torch.randn(3, 8, dtype=torch.float64, device=device) for _ in range(2))
    cotangent = torch.randn(3, fused.irreps_out.dim, dtype=torch.float64, device=device)
    assert_equal(*[TRANSFORMS[name](f, [x], [change], cotangent) for f in (fused, reference)])


def second_order(f, inputs):
    x = leaves(inputs)
    first = torch.autograd.grad(squared(f)(*x), x, create_graph=True)
    return [*first, *torch.autograd.grad(sum(g.square().sum() for g in first), x)]


@pytest.mark.parametrize(
    "around",
    [
        lambda: torch.autograd.graph.saved_tensors_hooks(torch.clone, torch.clone),
        torch.autograd.graph.save_on_cpu,
        torch.autograd.detect_anomaly,
    ],
    ids=["saved_tensors_hooks", "save_on_cpu", "detect_anomaly"],
)
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_contexts_of_autograd(device, around):
    layer, _ = both()
    inputs, _, edge_index = problem(layer, device=device)
    f = on_graph(layer, edge_index)
    expected = second_order(f, inputs)
    with around():
        assert_equal(second_order(f, inputs), expected)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoints(device, use_reentrant):
    layer, _ = both()
    inputs, _, edge_index = problem(layer, device=device)
    f, x, y = on_graph(layer, edge_index), leaves(inputs), leaves(inputs)
    squared(f)(*x).backward()
    squared(lambda *x: checkpoint(f, *x, use_reentrant=use_reentrant))(*y).backward()
    assert_equal([t.grad for t in y], [t.grad for t in x])


def test_hooks_on_gradients(device):
    layer, reference = both()
    inputs, _, edge_index = problem(layer, device=device)

    def gradients(layer):
        x = leaves(inputs)
        for t in x:
            t.register_hook(lambda gradient: 2 * gradient)
        out = on_graph(layer, edge_index)(*x)
        out.register_hook(lambda gradient: gradient + 1)
        return torch.autograd.grad(out.square().sum(), x)

    assert_equal(gradients(layer), gradients(reference))


@pytest.mark.slow
def test_threads_at_once():
    """Also the first use of a problem, whose coefficients others keep."""
    fused, reference = both()
    inputs, _, edge_index = problem(fused)

    def works(layer):
        f = squared(on_graph(layer, edge_index))
        two = [torch.stack([t, 2 * t]) for t in inputs]
        return [
            lambda: f(*inputs),
            lambda: vmap(grad(f))(*two),
            lambda: jacrev(jacrev(f))(*inputs),
            lambda: torch.autograd.functional.hessian(lambda x: f(x, *inputs[1:]), inputs[0], vectorize=True),
        ]

    expected, failed = [work() for work in works(reference)], []

    def run(first: int):
        try:
            for n in range(first, first + 8):
                assert_equal(works(fused)[n % 4](), expected[n % 4])
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
