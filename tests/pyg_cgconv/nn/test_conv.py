"""The layer as its users call it: the contract, PyG's conventions, and errors that name the argument."""

import copy
import pickle
import re

import pytest
import torch
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data

from cuda_kernels.cpu import launch
from pyg_cgconv import TensorProductConv
from pyg_cgconv.ops import Edges, _contract
from tests.problems import FORWARD

IRREPS = ("8x0e+5x1o", "0e+1o+2e", "0e+1o+2e")


def graph(layer, nodes=7, edges=20, device="cpu", dtype=torch.float64, seed=0):
    """x, edge_index, edge_attr, weight"""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype).to(device)

    edge_index = torch.randint(nodes, (2, edges), generator=generator).to(device)
    weight = random(layer.weight_numel) if layer.shared_weights else random(edges, layer.weight_numel)
    return random(nodes, layer.irreps_in.dim), edge_index, random(edges, layer.irreps_edge.dim), weight


def test_without_instructions_every_path_to_the_filter_has_a_sorted_slot():
    layer = TensorProductConv("4x0e+4x1o", "0e+1o", "0e+1o+1e")
    assert str(layer.irreps_out) == "4x0e+4x0e+4x1o+4x1o+4x1e"
    assert [i[:3] for i in layer.instructions] == [(0, 0, 0), (1, 1, 1), (0, 1, 2), (1, 0, 3), (1, 1, 4)]
    assert layer.weight_numel == 20


def test_the_order_of_instructions_is_the_order_of_weights(device):
    instructions = [(1, 0, 0, "uvu", True), (0, 1, 1, "uvu", True)]
    both, swapped = (
        TensorProductConv("3x0e+3x1o", "0e+1o", "3x1o+3x1o", order) for order in (instructions, instructions[::-1])
    )
    x, edge_index, edge_attr, weight = graph(both, device=device)
    expected = both(x, edge_index, edge_attr, weight)
    torch.testing.assert_close(swapped(x, edge_index, edge_attr, weight.roll(3, -1)), expected)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(swapped(x, edge_index, edge_attr, weight), expected)


@pytest.mark.parametrize("aggr", ["add", "mean"])
@pytest.mark.parametrize("layout", ["mul_ir", "ir_mul"])
def test_fused_equals_reference(device, layout, aggr):
    fused, reference = (TensorProductConv(*IRREPS, layout=layout, aggr=aggr, backend=b) for b in ("auto", "reference"))
    arguments = graph(fused, device=device)
    torch.testing.assert_close(fused(*arguments), reference(*arguments))


def test_edges_may_come_in_any_order_and_index_type(device):
    layer = TensorProductConv(*IRREPS)
    x, edge_index, edge_attr, weight = graph(layer, device=device)
    expected = layer(x, edge_index, edge_attr, weight)
    order = torch.randperm(edge_index.shape[1], device=device)
    torch.testing.assert_close(layer(x, edge_index[:, order], edge_attr[order], weight[order]), expected)
    torch.testing.assert_close(layer(x, edge_index.int(), edge_attr, weight), expected)


@pytest.mark.parametrize("sort_order", ["col", "row", None])
def test_edge_index_class(device, sort_order):
    layer = TensorProductConv(*IRREPS)
    x, plain, edge_attr, weight = graph(layer, device=device)
    if sort_order:
        plain = plain[:, plain[1 if sort_order == "col" else 0].argsort(stable=True)]
    edge_index = EdgeIndex(plain, sort_order=sort_order, sparse_size=(7, 7))
    torch.testing.assert_close(layer(x, edge_index, edge_attr, weight), layer(x, plain, edge_attr, weight))


def test_bipartite(device):
    layer = TensorProductConv(*IRREPS)
    x, _, edge_attr, weight = graph(layer, device=device)
    generator = torch.Generator().manual_seed(3)
    edge_index = torch.stack([torch.randint(n, (20,), generator=generator) for n in (7, 4)]).to(device)
    expected = layer((x, None), edge_index, edge_attr, weight, size=(7, 4))
    assert expected.shape == (4, layer.irreps_out.dim)
    torch.testing.assert_close(layer((x, x.new_zeros(4, 1)), edge_index, edge_attr, weight), expected)
    padded = layer((x, None), edge_index, edge_attr, weight, size=(7, 6))
    torch.testing.assert_close(padded[:4], expected)
    assert (padded[4:] == 0).all()


def test_empty_graphs_and_isolated_nodes(device):
    layer = TensorProductConv(*IRREPS)
    for nodes in (0, 3):
        x, edge_index, edge_attr, weight = graph(layer, nodes=max(nodes, 1), edges=0, device=device)
        x = x[:nodes].requires_grad_()
        out = layer(x, edge_index, edge_attr, weight)
        assert out.shape == (nodes, layer.irreps_out.dim)
        assert (out == 0).all()
        (gradient,) = torch.autograd.grad(out.sum(), x)
        assert (gradient == 0).all()


def test_a_batch_is_its_graphs_one_by_one(device):
    layer = TensorProductConv(*IRREPS)
    graphs = [graph(layer, nodes, edges, device, seed=nodes) for nodes, edges in ((4, 9), (1, 0), (6, 15))]
    data = [Data(x=x, edge_index=e, edge_attr=a, weight=w) for x, e, a, w in graphs]
    batch = Batch.from_data_list(data)
    out = layer(batch.x, batch.edge_index, batch.edge_attr, batch.weight)
    torch.testing.assert_close(out, torch.cat([layer(*arguments) for arguments in graphs]))


def test_a_change_in_place_is_seen(device):
    layer = TensorProductConv(*IRREPS)
    x, edge_index, edge_attr, weight = graph(layer, device=device)
    layer(x, edge_index, edge_attr, weight)
    edge_index.copy_(edge_index.flip(0))
    fresh = edge_index.clone()
    torch.testing.assert_close(layer(x, edge_index, edge_attr, weight), layer(x, fresh, edge_attr, weight))


def test_graphs_too_large_for_the_kernels_are_refused():
    with pytest.raises(ValueError, match=r"edge_index: kernels take fewer than 2\^30"):
        Edges(torch.zeros(2, 1, dtype=torch.long), sources=2**30, targets=1)


def test_inference_mode(device):
    layer = TensorProductConv(*IRREPS)
    expected = layer(*graph(layer, device=device))
    with torch.inference_mode():
        torch.testing.assert_close(layer(*graph(layer, device=device)), expected)


def test_rows_need_not_be_contiguous_or_aligned(device):
    layer = TensorProductConv(*IRREPS)
    x, edge_index, edge_attr, weight = graph(layer, device=device, dtype=torch.float32)
    expected = layer(x, edge_index, edge_attr, weight)

    def shifted(t):
        return torch.cat([t.new_zeros(t.shape[0], 1), t], 1)[:, 1:]

    odd = torch.empty(weight.numel() + 1, device=device)[1:].view_as(weight).copy_(weight)
    torch.testing.assert_close(layer(shifted(x), edge_index, shifted(edge_attr), odd), expected)


@pytest.mark.parametrize("wanted", [("x",), ("edge_attr",), ("weight",), ("x", "weight")], ids=str)
def test_only_gradients_asked_for_are_computed(device, wanted, monkeypatch):
    layer = TensorProductConv(*IRREPS)
    x, edge_index, edge_attr, weight = graph(layer, device=device)
    inputs = {"x": x, "edge_attr": edge_attr, "weight": weight}
    for name in wanted:
        inputs[name].requires_grad_()
    out = layer(x, edge_index, edge_attr, weight)
    computed, run = [], _contract.run
    monkeypatch.setattr(_contract, "run", lambda *a: (computed.append(a[1].spec), run(*a))[1])
    out.sum().backward()
    short = {"x": "x", "edge_attr": "y", "weight": "w"}
    assert computed == ["g.x.y.w>" + ",".join(short[name] for name in wanted)]
    assert {name for name, t in inputs.items() if t.grad is not None} == set(wanted)


@pytest.mark.slow
def test_operator_is_sound(device):
    """Shapes of fake tensors, autograd registration and schema, as torch.compile relies on them."""
    layer = TensorProductConv(*IRREPS)
    x, edge_index, edge_attr, weight = graph(layer, device=device)
    edges = Edges(edge_index, *[len(x)] * 2)
    inputs = [x.requires_grad_(), edge_attr, weight.requires_grad_()]
    lists = [*edges.by_target, *edges.by_source]
    arguments = (layer._summands.descriptions[0], FORWARD.spec, inputs, lists, len(x), False)
    torch.library.opcheck(torch.ops.pyg_cgconv.contract.default, arguments)


@pytest.mark.slow
@pytest.mark.parametrize("aggr", ["add", "mean"])
def test_compiled_without_graph_breaks(device, aggr):
    layer = TensorProductConv(*IRREPS, aggr=aggr)
    arguments = graph(layer, device=device)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*arguments), layer(*arguments))


def test_results_repeat_bit_for_bit(device):
    layer = TensorProductConv(*IRREPS, deterministic=True)
    x, edge_index, edge_attr, weight = graph(layer, nodes=5, edges=400, device=device, dtype=torch.float32)
    inputs = [t.requires_grad_() for t in (x, edge_attr, weight)]

    def run():
        out = layer(x, edge_index, edge_attr, weight)
        first = torch.autograd.grad(out.square().sum(), inputs, create_graph=True)
        return [out, *first, *torch.autograd.grad(sum(g.square().sum() for g in first), inputs)]

    expected = run()
    for _ in range(5):
        assert all(torch.equal(a, b) for a, b in zip(run(), expected, strict=True))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_work_and_carry_no_parameters(duplicate):
    layer = TensorProductConv(*IRREPS)
    arguments = graph(layer)
    expected = layer(*arguments)
    assert torch.equal(duplicate(layer)(*arguments), expected)
    assert not layer.state_dict()


def test_other_modes_run_on_the_reference_and_say_so():
    arguments = ("4x0e", "2x0e", "2x0e", [(0, 0, 0, "uvv", True)])
    with pytest.warns(UserWarning, match=r"instructions: .*uvv.*reference"):
        layer = TensorProductConv(*arguments)
    assert layer.backend == "reference"
    layer(*graph(layer, dtype=torch.float32))
    with pytest.raises(ValueError, match="instructions"):
        TensorProductConv(*arguments, backend="cpu")


@pytest.mark.parametrize(
    ("change", "raised", "words"),
    [
        (dict(x=lambda t: t[:, 1:]), ValueError, "x: expected shape"),
        (dict(x=lambda t: t[0]), ValueError, "x: expected shape"),
        (dict(edge_attr=lambda t: t[:-1]), ValueError, "edge_attr: expected shape"),
        (dict(weight=lambda t: t[:, :-1]), ValueError, "weight: expected shape"),
        (dict(weight=lambda t: t.float()), TypeError, "weight: dtype"),
        (dict(edge_attr=lambda t: t.half()), TypeError, "edge_attr: dtype"),
        (dict(edge_index=lambda t: t[:1]), ValueError, "edge_index: expected"),
        (dict(edge_index=lambda t: t.double()), ValueError, "edge_index: expected"),
        (dict(edge_index=lambda t: t + 5), ValueError, "edge_index: .*not in 0..6"),
        (dict(edge_index=lambda t: t - 1), ValueError, "edge_index: .*not in 0..6"),
        (dict(size=lambda _: (8, 7)), ValueError, "size: "),
        (dict(x=lambda t: (t, None)), ValueError, "size: needed"),
        (dict(x=lambda t: t.to("meta")), ValueError, "is on meta"),
    ],
)
def test_wrong_calls_are_named(change, raised, words):
    layer = TensorProductConv(*IRREPS)
    x, edge_index, edge_attr, weight = graph(layer)
    arguments = {"x": x, "edge_index": edge_index, "edge_attr": edge_attr, "weight": weight, "size": None}
    arguments |= {name: function(arguments[name]) for name, function in change.items()}
    with pytest.raises(raised, match=words):
        layer(**arguments)


@pytest.mark.parametrize(
    ("mode", "shared_weights", "numbers"), [("uvw", False, (9, 8)), ("uvw", True, (8,)), ("uuu", False, (9, 2))]
)
def test_wrong_weights_of_other_modes_are_named(mode, shared_weights, numbers):
    layer = TensorProductConv("2x0e", "2x0e", "2x0e", [(0, 0, 0, mode, True)], shared_weights=shared_weights)
    x, edge_index, edge_attr, weight = graph(layer, edges=9)
    assert tuple(weight.shape) == numbers
    with pytest.raises(ValueError, match=re.escape(f"weight: expected shape {numbers}, got (2, 3), in {layer} with ")):
        layer(x, edge_index, edge_attr, weight.new_ones(2, 3))
    with pytest.raises(TypeError, match=re.escape(f"weight: expected a tensor of shape {numbers}, got NoneType")):
        layer(x, edge_index, edge_attr)


def test_half_precision_is_refused_by_name():
    layer = TensorProductConv(*IRREPS)
    with pytest.raises(TypeError, match=r"x: dtype torch\.float16 has no kernel"):
        layer(*graph(layer, dtype=torch.float16))


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("4x0e", "0e", "1o"), {}, "irreps_out: no path"),
        (IRREPS, {"layout": "um"}, "layout: expected one of"),
        (IRREPS, {"backend": "gpu"}, "backend: expected one of"),
        (IRREPS, {"aggr": "most"}, "aggr: Could not resolve"),
        (("4x0e", "0e", "4x1o", [(0, 0, 0, "uvu", True)]), {}, "instructions: e3nn rejects"),
        (("4x0e", "0e", "3x0e", [(0, 0, 0, "uvu", True)]), {}, "instructions: e3nn rejects"),
        (("4x0e", "0e", "4x0e", [(0, 0, 7, "uvu", True)]), {}, "instructions: e3nn rejects"),
    ],
)
def test_wrong_layers_are_named(arguments, options, words):
    with pytest.raises(ValueError, match=words):
        TensorProductConv(*arguments, **options)


def test_backend_and_device_must_agree():
    layer = TensorProductConv(*IRREPS, backend="cuda")
    with pytest.raises(ValueError, match="backend='cuda'"):
        layer(*graph(layer))


def with_derivatives(layer, x, edge_index, edge_attr, weight):
    """The output, its derivatives and theirs."""
    inputs = [t.detach().requires_grad_() for t in (x, edge_attr, weight)]
    out = layer(inputs[0], edge_index, *inputs[1:])
    first = torch.autograd.grad(out.square().sum(), inputs, create_graph=True)
    return [out, *first, *torch.autograd.grad(sum(g.square().sum() for g in first), inputs)]


def assert_equal(results):
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


@pytest.mark.thorough
def test_results_do_not_depend_on_the_number_of_threads():
    layer = TensorProductConv("32x0e+32x1o", "0e+1o", "32x0e+32x1o")
    arguments = graph(layer, nodes=100, edges=4_000, dtype=torch.float32)
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            results.append(with_derivatives(layer, *arguments))
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert_equal(results)


def test_results_do_not_depend_on_the_pieces_that_threads_take(monkeypatch):
    layer = TensorProductConv("16x0e+16x1o", "0e+1o", "16x0e+16x1o", layout="ir_mul")
    arguments = graph(layer, nodes=40, edges=300)
    results = []
    for piece_bytes in (1, 10_000, 1 << 40):
        monkeypatch.setattr(launch, "PIECE_BYTES", piece_bytes)
        results.append(with_derivatives(layer, *arguments))
    assert_equal(results)
