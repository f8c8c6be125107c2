import pytest
import torch

from pyg_cgconv.benchmark import graphs
from pyg_cgconv.benchmark.kind import Missing
from pyg_cgconv.benchmark.products import reverses


@pytest.mark.slow
@pytest.mark.parametrize("name", graphs.GRAPHS)
def test_graphs_have_the_stated_size_and_are_sorted_by_target(name):
    stated_nodes, edges, _ = graphs.GRAPHS[name]
    nodes, edge_index = graphs.build(name)
    assert nodes == stated_nodes
    assert edge_index.shape == (2, edges)
    assert edge_index.dtype == torch.int64
    assert edge_index.min() >= 0
    assert edge_index.max() < nodes
    assert (edge_index[1].diff() >= 0).all()


@pytest.mark.parametrize("name", ["molecule", "molecules", "lattice", "liquid", "protein"])
def test_neighbors_are_mutual(name):
    _, edge_index = graphs.build(name)
    assert edge_index[:, reverses(edge_index)].equal(edge_index.flip(0))


@pytest.mark.parametrize("name", ["hub", "regular"])
def test_a_graph_of_one_way_edges_has_no_reverses(name):
    with pytest.raises(Missing, match="only symmetric graphs"):
        reverses(graphs.build(name).edge_index)


def test_molecules_have_no_edges_between_them():
    _, edge_index = graphs.build("molecules")
    assert (edge_index // 21).diff(dim=0).eq(0).all()


@pytest.mark.parametrize(
    ("name", "least", "median", "most"),
    [("lattice", 150, 160, 170), ("protein", 0, 11, 56), ("hub", 8, 8, 200_000), ("regular", 17, 18, 18)],
)
def test_graphs_differ_in_how_their_edges_are_spread(name, least, median, most):
    nodes, edge_index = graphs.build(name)
    degree = edge_index[1].bincount(minlength=nodes)
    assert degree.min() >= least
    assert degree.median() == median
    assert degree.max() <= most


def test_a_hub_and_its_regular_twin_have_the_same_size():
    assert graphs.GRAPHS["hub"][:2] == graphs.GRAPHS["regular"][:2]


def test_rows_have_no_edges():
    rows = graphs.build("rows-1k")
    assert rows == (1_000, None)
    assert rows.sites == 1_000


def test_the_first_nodes_keep_their_edges_and_all_sources():
    whole = graphs.build("molecule")
    part, kept = whole.of_first(5)
    assert part.nodes == whole.nodes
    assert part.edge_index.equal(whole.edge_index[:, kept])
    assert kept.equal(whole.edge_index[1] < 5)
    assert 0 < part.sites < whole.sites


def test_the_first_rows_are_rows():
    part, kept = graphs.build("rows-1k").of_first(5)
    assert part == (5, None)
    assert kept.nonzero().flatten().tolist() == [0, 1, 2, 3, 4]
