"""Lists of edges by node, against loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch_geometric import EdgeIndex

from pyg_cgconv import Edges, TensorProductConv
from pyg_cgconv.ops import _edges, sorted_edges, sorted_neighbors
from pyg_cgconv.ops._edges import Graph, _rows, listed_by_source


@given(st.lists(st.integers(0, 5), max_size=40), st.integers(1, 7))
def test_rows_hold_every_edge_of_their_node_once(targets, most):
    nodes = 6
    target = torch.tensor(sorted(targets), dtype=torch.int32)
    edges = torch.randperm(len(target), generator=torch.Generator().manual_seed(0)).to(torch.int32)
    starts, owners, listed, others, continuing = _rows(target, edges, edges, nodes, most)
    assert listed is edges
    assert others is edges
    walked = {node: [] for node in range(nodes)}
    further = []
    for row, owner in enumerate(owners.tolist()):
        begin, end = starts[row].item(), starts[row + 1].item()
        assert end - begin <= most
        if owner == nodes:
            assert begin == end == len(target)
            continue
        if row and owners[row - 1] == owner:
            further.append(owner)
            assert row - owner - 1 == len(further) - 1, "the kernel finds its partial row by this"
        walked[owner] += range(begin, end)
    assert walked == {node: [p for p, t in enumerate(target.tolist()) if t == node] for node in range(nodes)}
    assert continuing.tolist() == further + [nodes] * (len(continuing) - len(further))


def test_small_graphs_and_cpus_have_a_row_a_node():
    index = torch.randint(0, 3, (2, 5_000))
    starts, owners, _, _, continuing = Edges(index, 3, 3).by_target
    assert len(starts) == 4
    assert owners.tolist() == [0, 1, 2]
    assert len(continuing) == 0


def test_neighbours_are_not_cut_where_other_edges_are(monkeypatch):
    monkeypatch.setattr(_edges, "_row_edges", lambda edges: 2)
    edge_index = torch.tensor([[1, 2, 3, 4, 0], [0, 0, 0, 0, 1]])
    usual, neighbors = Edges(edge_index, 5), sorted_neighbors(edge_index, 5)
    assert usual.by_target.owners.tolist()[:3] == [0, 0, 1]
    assert neighbors.by_target.owners.tolist() == [0, 1, 2, 3, 4]
    for of in (neighbors, neighbors.to("cpu"), neighbors.repeated(2)):
        assert not len(of.by_target.continuing)
        assert not len(of.by_source.continuing)
    assert not len(listed_by_source(Graph(neighbors.by_target, None, 5)).continuing)
    assert type(sorted_edges(edge_index, 5, 5)) is Edges  # of the same tensor


@pytest.mark.parametrize("degree", ["in", "out"])
def test_lists_agree_with_the_edges(degree):
    index = torch.tensor([[2, 0, 1, 1, 0], [0, 0, 3, 0, 1]])
    edges = Edges(index, 3, 4)
    starts, _, listed, others, _ = edges.by_target if degree == "in" else edges.by_source
    owner, other = index.flip(0) if degree == "in" else index
    for node in range(4 if degree == "in" else 3):
        mine = listed[starts[node] : starts[node + 1]].long()
        assert mine.tolist() == (owner == node).nonzero().flatten().tolist()
        assert others[starts[node] : starts[node + 1]].tolist() == other[mine].tolist()


INDEX = torch.tensor([[2, 0, 1, 1, 0], [0, 0, 3, 0, 1]])
SQUARE = INDEX.clamp(max=2)


def assert_same(edges: Edges, expected: Edges) -> None:
    for found, wanted in zip(
        (*edges.by_target, *edges.by_source), (*expected.by_target, *expected.by_source), strict=True
    ):
        assert found.dtype == torch.int32
        assert torch.equal(found, wanted)
    assert torch.equal(edges.in_degrees, torch.tensor([3, 1, 0, 1], dtype=torch.int32))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_edges_of_every_form(dtype):
    index, expected = INDEX.to(dtype), Edges(INDEX, 3, 4)
    assert_same(Edges((index[0], index[1]), 3, 4), expected)
    assert_same(Edges(index.flip(0), 3, 4, flow="target_to_source"), expected)
    assert_same(Edges(EdgeIndex(index, sparse_size=(3, 4)), 3, 4), expected)


@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
def test_an_edge_index_sorted_by_its_target_is_not_sorted_again(flow, monkeypatch):
    rows = INDEX if flow == "source_to_target" else INDEX.flip(0)
    order = INDEX[1].argsort(stable=True)
    rows, expected = rows[:, order], Edges(INDEX[:, order], 3, 4)
    sort = "col" if flow == "source_to_target" else "row"
    sizes = (3, 4) if flow == "source_to_target" else (4, 3)
    monkeypatch.setattr(torch, "sort", None)
    edges = Edges(EdgeIndex(rows, sparse_size=sizes, sort_order=sort), 3, 4, flow=flow)
    monkeypatch.undo()
    assert_same(edges, expected)


@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
def test_an_edge_index_says_how_many_nodes_there_are(flow):
    index, sizes = (INDEX, (3, 4)) if flow == "source_to_target" else (INDEX.flip(0), (4, 3))
    edge_index = EdgeIndex(index, sparse_size=sizes)
    assert_same(Edges(edge_index, 3, flow=flow), Edges(INDEX, 3, 4))
    with pytest.raises(ValueError, match=r"^targets: 5, but sparse_size of edge_index says 4"):
        Edges(edge_index, 3, 5, flow=flow)
    with pytest.raises(ValueError, match=r"^sources: 4, but sparse_size of edge_index says 3"):
        Edges(edge_index, 4, flow=flow)


def test_identity():
    edges = Edges.identity(3)
    assert edges.sources == edges.targets == edges.num_edges == 3
    assert edges.by_target.others.tolist() == edges.by_source.others.tolist() == [0, 1, 2]
    assert repr(edges) == "Edges(3 edges, 3 sources, 3 targets, cpu)"


@pytest.mark.parametrize(
    ("edge_index", "options", "words"),
    [
        (INDEX[0], {}, r"^edge_index: expected \(2, E\)"),
        (INDEX.double(), {}, r"^edge_index: expected int64 or int32"),
        ((INDEX[0], INDEX[1, 1:]), {}, r"^edge_index: expected int64 or int32"),
        (INDEX, {"flow": "up"}, r"^flow: expected one of"),
        ((INDEX[0], INDEX[1].to("meta")), {}, r"^edge_index: sources are on cpu, targets on meta"),
        (INDEX + 2, {}, r"^edge_index: a source node is not in 0..2"),
        (INDEX + torch.tensor([[0], [2**32]]), {}, r"^edge_index: a target node is not in 0..3"),
    ],
)
def test_mistakes_are_named(edge_index, options, words):
    with pytest.raises(ValueError, match=words):
        Edges(edge_index, 3, 4, **options)


@pytest.mark.parametrize("edge_index", [None, [[0, 1], [1, 0]], INDEX.numpy(), (INDEX[0],) * 3, Edges(INDEX, 3, 4)])
def test_other_things_than_edges_are_named(edge_index):
    with pytest.raises(TypeError, match=r"^edge_index: expected a tensor \(2, E\), .* got "):
        Edges(edge_index, 3, 4)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Edges(INDEX, None), TypeError, "^sources: expected a number of nodes, got None"),
        (lambda: Edges(INDEX, 3.0), TypeError, "^sources: expected a number of nodes, got 3.0"),
        (lambda: Edges(INDEX, 3, -4), ValueError, "^targets: expected a number of nodes, 0 or more, got -4"),
        (lambda: Edges.identity(-1), ValueError, "^nodes: expected a number of nodes, 0 or more, got -1"),
    ],
)
def test_wrong_numbers_of_nodes_are_named(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_edges_move_to_a_device(device):
    edges = Edges(INDEX, 3, 4)
    assert edges.to("cpu") is edges
    moved = edges.to(device)
    assert moved.device.type == torch.device(device).type
    assert_same(moved.to("cpu"), edges)


def test_edges_keep_no_lists_of_a_program_that_is_traced():
    edges, features = Edges(SQUARE, 3), [t.clone() for t in FEATURES]
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        x, edge_attr, weight = (mode.from_tensor(t) for t in features)
        LAYER(x.requires_grad_(), edges, edge_attr, weight)
    x = features[0].requires_grad_()
    LAYER(x, edges, *features[1:]).square().sum().backward()
    (expected,) = torch.autograd.grad(LAYER(x, SQUARE, *features[1:]).square().sum(), x)
    torch.testing.assert_close(x.grad, expected)


@pytest.mark.parametrize("edge_index", [None, (SQUARE[0], SQUARE[1])])
def test_a_layer_names_what_is_not_an_index(edge_index):
    with pytest.raises(TypeError, match=r"^edge_index: expected an integer tensor .* got (NoneType|tuple); .* Edges"):
        LAYER(FEATURES[0], edge_index, *FEATURES[1:])
    with pytest.raises(TypeError, match=r"^weight: expected a tensor of shape \(5, 2\), got NoneType"):
        LAYER(FEATURES[0], SQUARE, FEATURES[1], None)


LAYER = TensorProductConv("2x0e", "0e", "2x0e")
FEATURES = torch.randn(3, 2), torch.randn(5, 1), torch.randn(5, 2)


def output(edge_index, layer=LAYER) -> torch.Tensor:
    x, edge_attr, weight = FEATURES
    return layer(x, edge_index, edge_attr, weight, **({} if isinstance(edge_index, Edges) else {"size": (3, 3)}))


def test_layers_take_edges_in_place_of_an_index():
    edges = Edges(SQUARE, 3)
    torch.testing.assert_close(output(edges), output(SQUARE))
    reference = TensorProductConv("2x0e", "0e", "2x0e", backend="reference")
    torch.testing.assert_close(output(edges, reference), output(SQUARE))
    with pytest.raises(ValueError, match="size"):
        LAYER(torch.randn(4, 2), edges, *FEATURES[1:])
    with pytest.raises(ValueError, match=r"^size: the number of target nodes is 4 by size, 3 by edge_index"):
        LAYER(FEATURES[0], edges, *FEATURES[1:], size=(3, 4))
