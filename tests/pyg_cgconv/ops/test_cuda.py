"""What only a GPU can show: streams, captured graphs, nodes of many edges, kernels found on disk."""

import os
import subprocess
import sys

import pytest
import torch

from pyg_cgconv import TensorProductConv
from pyg_cgconv.ops import _run, sorted_edges
from tests.problems import error
from tests.pyg_cgconv import test_calls as calls

pytestmark = pytest.mark.cuda
IRREPS = ("32x0e+32x1o", "0e+1o+2e", "0e+1o+2e")


def orders(layer, x, edge_index, y, w):
    """The output, its gradients, and the gradients of those, for random cotangents."""
    out = layer(x, edge_index, y, w)
    cotangent = random_like(out).requires_grad_()
    first = torch.autograd.grad(out, (x, y, w), cotangent, create_graph=True)
    tangents = [random_like(t) for t in first]
    return [out, *first, *torch.autograd.grad(first, (x, y, w, cotangent), tangents)]


def random_like(tensor):
    """Numbers that depend on the place alone: the same on every device, and in a captured graph."""
    places = torch.arange(tensor.numel(), device=tensor.device, dtype=torch.float64)
    return torch.sin(places * places).to(tensor.dtype).reshape(tensor.shape)


def inputs(layer, nodes, edges, device="cuda", dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = (nodes, layer.irreps_in.dim), (edges, layer.irreps_edge.dim), (edges, layer.weight_numel)
    random = [torch.randn(s, generator=generator, dtype=torch.float64).to(device, dtype) for s in shapes]
    return [t.requires_grad_() for t in random]


def worst(results, expected) -> float:
    return max(error(a, b.cpu().double()) for a, b in zip(results, expected, strict=True))


@pytest.mark.parametrize("layout", ["mul_ir", "ir_mul"])
@pytest.mark.parametrize("deterministic", [False, True])
def test_a_node_of_many_edges(deterministic, layout):
    layer = TensorProductConv(*IRREPS, layout=layout, deterministic=deterministic)
    nodes, edges = 9, 5_000
    index = torch.randint(0, nodes, (2, edges), generator=torch.Generator().manual_seed(1))
    index[1, :3_000], index[0, 2_000:4_500] = 4, 6  # a target and a source with most of the edges
    results = [
        orders(layer, x, index.to(device), y, w)
        for device, dtype in (("cpu", torch.float64), ("cuda", torch.float32))
        for x, y, w in [inputs(layer, nodes, edges, device, dtype)]
    ]
    assert worst(*reversed(results)) < 1e-5  # sums of 3,000 numbers


def test_the_forward_repeats_bit_for_bit_where_nodes_are_cut():
    layer = TensorProductConv(*IRREPS)
    index = torch.randint(0, 3, (2, 20_000), device="cuda")
    x, y, w = inputs(layer, 3, 20_000)
    with torch.no_grad():
        expected = layer(x, index, y, w)
        assert all(torch.equal(layer(x, index, y, w), expected) for _ in range(5))


def test_side_stream():
    layer = TensorProductConv(*IRREPS)
    index = torch.randint(0, 50, (2, 600), device="cuda")
    arguments = inputs(layer, 50, 600)
    expected = orders(layer, arguments[0], index, *arguments[1:])
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)  # what was started on another stream would now read too early
        later = [(t.detach() * 1.0).requires_grad_() for t in arguments]
        result = orders(layer, later[0], index, *later[1:])
    stream.synchronize()
    assert worst(result, expected) < 1e-6


@pytest.mark.parametrize("aggr", ["add", "mean"])
def test_captured_in_a_graph(aggr):
    layer = TensorProductConv(*IRREPS, aggr=aggr)
    index = torch.randint(0, 50, (2, 3_000), device="cuda")
    arguments = inputs(layer, 50, 3_000)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        orders(layer, arguments[0], index, *arguments[1:])
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = orders(layer, arguments[0], index, *arguments[1:])
    fresh = inputs(layer, 50, 3_000, seed=1)
    with torch.no_grad():
        for old, new in zip(arguments, fresh, strict=True):
            old.copy_(new)
        index.copy_(torch.randint(0, 50, (2, 3_000), device="cuda"))
    graph.replay()
    assert worst(captured, orders(layer, fresh[0], index.clone(), *fresh[1:])) < 1e-6


@pytest.mark.parametrize("name", calls.MAKERS)
def test_other_modes_and_products_captured_in_a_graph(name):
    module = calls.MAKERS[name]().cuda()
    given = [t.cuda() for t in calls.inputs(module)]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        calls.orders(module, given)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = calls.orders(module, given)
    for tensor in given:
        tensor.copy_(tensor.flip(-1))
    graph.replay()
    calls.assert_close(captured, calls.orders(module, [t.clone() for t in given]))


@pytest.mark.parametrize("name", calls.MAKERS)
def test_several_streams_at_once(name):
    """None reads what another one writes: each has tensors of its own, made on it."""
    module = calls.MAKERS[name]().cuda()
    problems = [[t.cuda() for t in calls.inputs(module, rows)] for rows in (300, 500, 700)]
    expected = [calls.orders(module, given) for given in problems]
    torch.cuda.synchronize()
    streams, results = [torch.cuda.Stream() for _ in problems], []
    for stream, given in zip(streams, problems, strict=True):
        with torch.cuda.stream(stream):
            torch.cuda._sleep(5_000_000)
            results.append(calls.orders(module, [t.clone() for t in given]))
    torch.cuda.synchronize()
    for found, wanted in zip(results, expected, strict=True):
        calls.assert_close(found, wanted)


@pytest.mark.parametrize("warn_only", [False, True])
@pytest.mark.parametrize("name", ["layer, weights of edges", "product, weights of rows", "elementwise"])
def test_torchs_switch_makes_derivatives_repeat_bit_for_bit(name, warn_only):
    """Products with shared weights need CUBLAS_WORKSPACE_CONFIG, too: they call matrix products of cuBLAS."""
    module = calls.MAKERS[name]().cuda()
    given = [t.cuda() for t in calls.inputs(module, 20_000, nodes=5)]
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    try:
        expected = calls.orders(module, given)
        for _ in range(5):
            found = calls.orders(module, [t.clone() for t in given])
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    finally:
        torch.use_deterministic_algorithms(False)


def test_layers_captured_in_one_graph_share_a_sort():
    index = torch.randint(0, 50, (2, 3_000), device="cuda")
    eager = sorted_edges(index, 50, 50)
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        first, second = sorted_edges(index, 50, 50), sorted_edges(index, 50, 50)
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        other = sorted_edges(index, 50, 50)
    assert first is second
    assert len({id(edges) for edges in (eager, first, other, sorted_edges(index, 50, 50))}) == 4


def test_other_sizes_compile_nothing():
    layer = TensorProductConv(*IRREPS)
    for nodes, edges in ((5, 40), (7, 90), (300, 4_000), (5, 0)):
        index = torch.randint(0, nodes, (2, edges), device="cuda")
        arguments = inputs(layer, nodes, edges)
        orders(layer, arguments[0], index, *arguments[1:])
        plans = _run._plan.cache_info().currsize
        assert plans == getattr(test_other_sizes_compile_nothing, "plans", plans)
        test_other_sizes_compile_nothing.plans = plans


def test_kernels_on_disk_run_without_their_compiler():
    script = """
import sys, torch
from pyg_cgconv import TensorProductConv
layer = TensorProductConv("32x0e+32x1o", "0e+1o", "0e+1o")
x, y, w = torch.randn(3, 128).cuda(), torch.randn(5, 4).cuda(), torch.randn(5, layer.weight_numel).cuda()
layer(x, torch.randint(0, 3, (2, 5)).cuda(), y, w)
print("numba.cuda" in sys.modules)
"""
    runs = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ, check=True)
        for _ in range(2)
    ]
    assert [run.stdout.strip() for run in runs][-1] == "False"
