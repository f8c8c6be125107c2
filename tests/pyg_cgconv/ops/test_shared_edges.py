"""One sort for all calls with one index, which sees every change of it."""

import gc
import weakref

import pytest
import torch
from torch_geometric import EdgeIndex

from pyg_cgconv import TensorProductConv
from pyg_cgconv.ops import sorted_edges, sorted_neighbors

SQUARE = torch.tensor([[2, 0, 1, 1, 0], [0, 0, 2, 0, 1]])
LAYER = TensorProductConv("2x0e", "0e", "2x0e")
FEATURES = torch.randn(3, 2), torch.randn(5, 1), torch.randn(5, 2)


def output(index: torch.Tensor) -> torch.Tensor:
    x, edge_attr, weight = (t.to(index.device) for t in FEATURES)
    return LAYER(x, index, edge_attr, weight)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("write", ["torch", "numpy", "data"])
def test_every_write_to_an_index_on_a_cpu_is_seen(write, dtype):
    index = SQUARE.to(dtype).clone()
    output(index)
    if write == "torch":
        index[0, 0] = 0
    elif write == "numpy":
        index.numpy()[0, 0] = 0
    else:
        index.data[0, 0] = 0
    torch.testing.assert_close(output(index), output(index.clone()))
    assert sorted_edges(index, 3, 3) is sorted_edges(index, 3, 3)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_a_write_between_forward_and_backward_changes_nothing(dtype):
    index, features = SQUARE.to(dtype).clone(), [t.clone().requires_grad_() for t in FEATURES]
    expected = torch.autograd.grad(LAYER(features[0], index.clone(), *features[1:]).square().sum(), features)
    out = LAYER(features[0], index, *features[1:]).square().sum()
    index[0, 0] = 0
    for found, wanted in zip(torch.autograd.grad(out, features), expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_a_shared_sort_keeps_no_tensor_alive(dtype):
    index = SQUARE.to(dtype).clone()
    alive = weakref.ref(index), weakref.ref(sorted_edges(index, 3, 3))
    del index
    gc.collect()
    assert [reference() for reference in alive] == [None, None]


def test_an_edge_index_of_pyg_shares_a_sort_too():
    index = EdgeIndex(SQUARE.clone(), sparse_size=(3, 3))
    assert sorted_edges(index, 3, 3) is sorted_edges(index, 3, 3)


def test_layers_and_integrations_that_alternate_sort_once_each():
    index = SQUARE.clone()
    edges, neighbors = sorted_edges(index, 3, 3), sorted_neighbors(index, 3)
    assert sorted_edges(index, 3, 3) is edges
    assert sorted_neighbors(index, 3) is neighbors


def test_flows_do_not_share_a_sort():
    index = SQUARE.clone()
    edges, reverse = sorted_edges(index, 3, 3), sorted_edges(index, 3, 3, "target_to_source")
    assert torch.equal(edges.source, reverse.target)
    assert torch.equal(edges.target, reverse.source)


@pytest.mark.cuda
class TestCheckedOnAGPU:
    """With PYG_CGCONV_CHECK=1 a GPU says what a CPU says."""

    @pytest.fixture(autouse=True)
    def checked(self, monkeypatch):
        monkeypatch.setenv("PYG_CGCONV_CHECK", "1")

    @pytest.mark.parametrize(("change", "end"), [([[1], [0]], "source"), ([[0], [-1]], "target")])
    def test_an_index_out_of_range(self, change, end):
        with pytest.raises(ValueError, match=f"^edge_index: a {end} node is not in 0..2"):
            output((SQUARE + torch.tensor(change)).cuda())

    def test_an_edge_index_that_is_not_sorted_as_it_says(self):
        with pytest.raises(ValueError, match=r"^edge_index: an EdgeIndex that says it is sorted by its targets, but"):
            output(EdgeIndex(SQUARE.cuda(), sort_order="col", sparse_size=(3, 3)))

    def test_a_write_that_torch_does_not_count(self):
        index = SQUARE.cuda()
        output(index)
        index.data[0, 0] = 0
        torch.testing.assert_close(output(index), output(index.clone()))
        assert sorted_edges(index, 3, 3) is sorted_edges(index, 3, 3)

    def test_a_capture_is_not_disturbed(self):
        index, features = SQUARE.cuda(), [t.cuda() for t in FEATURES]
        wanted = output(index)
        with torch.cuda.graph(graph := torch.cuda.CUDAGraph()):
            captured = LAYER(features[0], index, *features[1:])
        graph.replay()
        torch.testing.assert_close(captured, wanted)
