"""Ways of calling: what the layer of mode "uvu" promises, layers of other modes and products of rows keep, too.

Few kernels serve the whole file: it has one small problem for each kind.
"""

import copy
import io
import pickle
import shutil
import threading
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint
from torch_geometric.nn import HeteroConv, to_hetero

from pyg_cgconv import (
    ElementwiseTensorProduct,
    FullyConnectedTensorProduct,
    TensorProduct,
    TensorProductConv,
    TensorSquare,
)
from pyg_cgconv.ops import _contract, _operation

IRREPS = "2x0e+2x1o", "2x0e+2x1o", "2x0e+2x1o"
MIXTURE = [(0, 1, 1, "uvu", True), (1, 1, 0, "uvw", True), (0, 0, 0, "uuu", True)]
MAKERS = {
    "layer, weights of edges": lambda: TensorProductConv(*IRREPS, MIXTURE),
    "layer, shared weights": lambda: TensorProductConv(*IRREPS, MIXTURE, shared_weights=True),
    "product, weights of rows": lambda: TensorProduct(*IRREPS, MIXTURE, shared_weights=False),
    "fully connected": lambda: FullyConnectedTensorProduct("2x0e+1o", "1o", "2x0e+2x1o"),
    "elementwise": lambda: ElementwiseTensorProduct(*IRREPS[:2], ["0e", "1o"]),
    "square": lambda: TensorSquare("2x0e+1o", "2x0e+1o"),
}
GRAPHS = ["layer, weights of edges", "layer, shared weights"]
NODES, TARGETS, EDGES = 4, 3, 7


def inputs(module: nn.Module, rows: int = EDGES, nodes: int = NODES) -> list[Tensor]:
    """What a module is called with, for so many edges or rows."""
    generator = torch.Generator().manual_seed(rows)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    if isinstance(module, TensorProductConv):
        edge_index = torch.randint(nodes, (2, rows), generator=generator)
        weight = (module.weight_numel,) if module.shared_weights else (rows, module.weight_numel)
        return [random(nodes, module.irreps_in.dim), edge_index, random(rows, module.irreps_edge.dim), random(*weight)]
    if isinstance(module, TensorSquare):
        return [random(rows, module.irreps_in.dim)]
    features = [random(rows, module.irreps_in1.dim), random(rows, module.irreps_in2.dim)]
    return features if module.shared_weights else [*features, random(rows, module.weight_numel)]


def leaves(given: list[Tensor]) -> list[Tensor]:
    return [t.clone().requires_grad_() if t.is_floating_point() else t for t in given]


def orders(function, given: list[Tensor]) -> list[Tensor]:
    """The output, the gradients of its cubes, and the gradients of theirs."""
    given = leaves(given)
    wanted = [t for t in given if t.requires_grad]
    out = function(*given)
    first = torch.autograd.grad(out.pow(3).sum(), wanted, create_graph=True)
    return [out, *first, *torch.autograd.grad(sum(g.square().sum() for g in first), wanted)]


def slopes(function, given: list[Tensor], parameters=()) -> list[Tensor]:
    given = leaves(given)
    out = function(*given)
    wanted = [*(t for t in given if t.requires_grad), *parameters]
    return [out, *torch.autograd.grad(out.square().sum(), wanted)]


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * max(1.0, other.abs().max().item()))


@pytest.fixture(params=MAKERS)
def module(request) -> nn.Module:
    torch.manual_seed(0)
    return MAKERS[request.param]()


@pytest.mark.thorough
def test_saved_tensors_are_moved_and_computed_again(module):
    given = inputs(module)
    expected = orders(module, given)
    hooks = torch.autograd.graph.saved_tensors_hooks(torch.clone, torch.clone)
    for around in (hooks, torch.autograd.graph.save_on_cpu()):
        with around:
            assert_close(orders(module, given), expected)
    expected = slopes(module, given)[1:]
    for use_reentrant in (False, True):
        again = leaves(given)
        checkpoint(module, *again, use_reentrant=use_reentrant).square().sum().backward()
        assert_close([t.grad for t in again if t.requires_grad], expected)


def saved(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def test_copies_compute_the_same(module):
    given = inputs(module)
    expected = module(*given)
    for duplicate in (copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), saved):
        assert torch.equal(duplicate(module)(*given), expected)


def test_hooks_of_modules_are_called(module):
    calls = []
    for kind in ("forward_pre", "forward", "full_backward_pre", "full_backward"):
        getattr(module, f"register_{kind}_hook")(lambda *_, kind=kind: calls.append(kind))
    given = leaves(inputs(module))
    module(*given).sum().backward()
    assert calls == ["forward_pre", "forward", "full_backward_pre", "full_backward"]
    assert all(t.grad is not None for t in given if t.requires_grad)


@pytest.mark.slow
def test_threads_at_once():
    modules = [make() for make in MAKERS.values()]
    expected, failed = [orders(m, inputs(m)) for m in modules], []

    def run(first: int) -> None:
        try:
            for n in range(len(modules)):
                which = (first + n) % len(modules)
                assert_close(orders(modules[which], inputs(modules[which])), expected[which])
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


@pytest.fixture
def without_earlier_programs():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.thorough
@pytest.mark.usefixtures("without_earlier_programs")
def test_two_programs_serve_all_sizes(module):
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(module, fullgraph=True, backend=counter)
    for rows, nodes in ((12, 5), (20, 7), (31, 9), (6, 6)):
        given = inputs(module, rows, nodes)
        assert_close(slopes(compiled, given, module.parameters()), slopes(module, given, module.parameters()))
    assert counter.frame_count <= 2


class Network(nn.Module):
    """A layer and products, one after the other."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = MAKERS["layer, weights of edges"](), FullyConnectedTensorProduct(*IRREPS)
        self.square = TensorSquare(IRREPS[2], "1x0e")

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, weight: Tensor) -> Tensor:
        return self.square(self.linear(self.conv(x, edge_index, edge_attr, weight), x))


@pytest.mark.thorough
@pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs a C++ compiler")
@pytest.mark.usefixtures("without_earlier_programs")
def test_inductor_compiles_gradients():
    layer = MAKERS["layer, weights of edges"]()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True)
    for rows, nodes in ((12, 5), (20, 7)):
        given = inputs(layer, rows, nodes)
        assert_close(slopes(compiled, given), slopes(layer, given))


@pytest.mark.slow
@pytest.mark.parametrize("warn_only", [False, True])
def test_the_switch_for_deterministic_algorithms_is_obeyed(warn_only, monkeypatch):
    """On a GPU derivatives then add without atomic operations; a CPU always does."""
    layer = TensorProductConv("2x0e", "0e", "2x0e", [(0, 0, 0, "uvu", True)])
    given, asked = inputs(layer), []
    compute = _contract.run
    for where in (_contract, _operation):
        monkeypatch.setattr(where, "run", lambda *a: (asked.append(a[-1]), compute(*a))[1])
    expected = orders(layer, given)
    assert asked
    assert not any(asked)
    asked.clear()
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = orders(layer, given)
        eager = len(asked)
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        assert_close(slopes(compiled, given), slopes(layer, given))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(asked)
    assert len(asked) > eager > 0
    assert_close(found, expected)


BONDS, INSIDE = ("atom", "bond", "atom"), ("atom", "in", "site")


def relations(layer: TensorProductConv) -> list[dict]:
    """Features, edges, edge features and weights of a graph with two types of nodes, and a bipartite pair."""
    ends = {BONDS: (NODES, NODES), INSIDE: (NODES, TARGETS)}
    edges = {r: torch.stack([torch.randint(n, (EDGES,)) for n in nodes]) for r, nodes in ends.items()}
    weight = (layer.weight_numel,) if layer.shared_weights else (EDGES, layer.weight_numel)
    return [
        {"atom": torch.randn(NODES, layer.irreps_in.dim), "site": torch.randn(TARGETS, layer.irreps_in.dim)},
        edges,
        {r: torch.randn(EDGES, layer.irreps_edge.dim) for r in ends},
        {r: torch.randn(weight) for r in ends},
    ]


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_of_several_types(name):
    layer = MAKERS[name]()
    x, edges, edge_attr, weight = relations(layer)
    sites = layer((x["atom"], None), edges[INSIDE], edge_attr[INSIDE], weight[INSIDE], size=(NODES, TARGETS))
    atoms = layer(x["atom"], edges[BONDS], edge_attr[BONDS], weight[BONDS])

    class Convolution(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = layer

        def forward(self, x, edge_index, edge_attr, edge_weight):
            return self.conv(x, edge_index, edge_attr, edge_weight)

    both = HeteroConv({BONDS: layer, INSIDE: copy.deepcopy(layer)})
    network = to_hetero(Convolution(), (["atom", "site"], [BONDS, INSIDE]))
    for found in (
        both(x, edges, edge_attr_dict=edge_attr, weight_dict=weight),
        network(x, edges, edge_attr, weight),
    ):
        assert_close([found["atom"], found["site"]], [atoms, sites])


@pytest.mark.parametrize("make", [TensorProductConv, FullyConnectedTensorProduct])
def test_irreps_are_not_found_out_later(make):
    with pytest.raises(ValueError, match=r"^irreps_in1?: expected irreps such as '16x0e\+16x1o', got -1"):
        make(-1, "0e", "0e")
