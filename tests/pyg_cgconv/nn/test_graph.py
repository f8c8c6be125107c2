"""What a layer takes for a graph, against the same edges in a plain ``edge_index``."""

import pytest
import torch
from torch.func import grad
from torch_geometric import EdgeIndex

from pyg_cgconv import Edges, TensorProductConv
from tests.orders import INPUTS, IRREPS, SOURCES, TARGETS, assert_orders, orders
from tests.transforms import TRANSFORMS

X, EDGE_INDEX, EDGE_ATTR, WEIGHT = INPUTS
LAYERS = {backend: TensorProductConv(*IRREPS, backend=backend) for backend in ("auto", "reference")}
REVERSED = TensorProductConv(*IRREPS, flow="target_to_source")
WANTED = LAYERS["auto"]((X, None), EDGE_INDEX, EDGE_ATTR, WEIGHT, size=(SOURCES, TARGETS))
SORTED = EDGE_INDEX[1].argsort(stable=True)


@pytest.mark.parametrize("backend", LAYERS)
def test_an_edge_index_says_how_many_targets_there_are(backend):
    edge_index = EdgeIndex(EDGE_INDEX, sparse_size=(SOURCES, TARGETS))
    torch.testing.assert_close(LAYERS[backend]((X, None), edge_index, EDGE_ATTR, WEIGHT), WANTED)


def test_in_the_other_flow_the_targets_are_its_rows():
    edge_index = EdgeIndex(EDGE_INDEX.flip(0), sparse_size=(TARGETS, SOURCES))
    torch.testing.assert_close(REVERSED((X, None), edge_index, EDGE_ATTR, WEIGHT), WANTED)


@pytest.mark.parametrize("backend", LAYERS)
@pytest.mark.parametrize(
    ("sparse_size", "x", "size", "words"),
    [
        ((SOURCES + 1, SOURCES), X, None, "source nodes is 6 by edge_index, 5 by x"),
        ((SOURCES, TARGETS), X, None, "target nodes is 4 by edge_index, 5 by x"),
        ((SOURCES, TARGETS), (X, X[:3]), None, "target nodes is 4 by edge_index, 3 by x"),
        ((SOURCES, TARGETS), (X, None), (SOURCES, 7), "target nodes is 7 by size, 4 by edge_index"),
    ],
)
def test_sizes_that_contradict_each_other_are_named(backend, sparse_size, x, size, words):
    edge_index = EdgeIndex(EDGE_INDEX, sparse_size=sparse_size)
    with pytest.raises(ValueError, match=f"^size: the number of {words}; they must agree"):
        LAYERS[backend](x, edge_index, EDGE_ATTR, WEIGHT, size=size)


@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
def test_an_edge_index_that_is_not_sorted_as_it_says_is_refused(flow, device):
    layer, index, order = LAYERS["auto"], EDGE_INDEX, "col"
    if flow == "target_to_source":
        layer, index, order = REVERSED, EDGE_INDEX.flip(0), "row"
    x, edge_attr, weight = (t.to(device) for t in (X, EDGE_ATTR, WEIGHT))
    with pytest.MonkeyPatch.context() as patch:
        if device.type == "cuda":
            patch.setenv("PYG_CGCONV_CHECK", "1")
        with pytest.raises(ValueError, match=r"^edge_index: an EdgeIndex that says it is sorted by its targets, but"):
            layer(x, EdgeIndex(index.to(device), sort_order=order, sparse_size=(5, 5)), edge_attr, weight)


@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
def test_an_order_by_sources_says_nothing(flow):
    layer, index, order = LAYERS["auto"], EDGE_INDEX, "row"
    if flow == "target_to_source":
        layer, index, order = REVERSED, EDGE_INDEX.flip(0), "col"
    found = layer(X, EdgeIndex(index, sort_order=order, sparse_size=(5, 5)), EDGE_ATTR, WEIGHT)
    torch.testing.assert_close(found[:TARGETS], WANTED)


def adjacency(layout: str, targets: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The transposed adjacency matrix, and its edges (source, target) in the order of its values: by row, by column
    in CSC."""
    matrix = torch.zeros(targets, SOURCES)
    matrix[EDGE_INDEX[1], EDGE_INDEX[0]] = 1
    source, target = (matrix.nonzero().T.flip(0)) if layout != "csc" else matrix.T.nonzero().T
    made = {"coo": matrix.to_sparse_coo, "csr": matrix.to_sparse_csr, "csc": matrix.to_sparse_csc}[layout]()
    return made, torch.stack([source, target])


@pytest.mark.parametrize("backend", LAYERS)
@pytest.mark.parametrize("layout", ["coo", "csr", "csc"])
def test_a_transposed_sparse_adjacency(layout, backend):
    adj_t, edge_index = adjacency(layout, SOURCES)
    edge_attr, weight = (t[: edge_index.shape[1]] for t in (EDGE_ATTR, WEIGHT))
    found = orders(LAYERS[backend], X, adj_t, edge_attr, weight)
    assert_orders(found, orders(LAYERS["auto"], X, edge_index, edge_attr, weight))


@pytest.mark.parametrize("backend", LAYERS)
@pytest.mark.parametrize("layout", ["coo", "csr", "csc"])
@pytest.mark.parametrize("name", ["forward", "dual_numbers", "pulled_back", "forward_over_reverse", "mapped"])
def test_transforms_with_a_sparse_adjacency(name, layout, backend):
    adj_t, edge_index = adjacency(layout, SOURCES)
    inputs = [X, *(t[: edge_index.shape[1]] for t in (EDGE_ATTR, WEIGHT))]
    changes, cotangent = [t.flip(0) for t in inputs], LAYERS["auto"](inputs[0], edge_index, *inputs[1:])

    def results(graph):
        def f(x, edge_attr, weight):
            return LAYERS[backend](x, graph, edge_attr, weight)

        return TRANSFORMS[name](f, inputs, changes, cotangent)

    assert_orders(results(adj_t), results(edge_index))


def test_a_sparse_adjacency_may_be_an_argument_of_what_is_transformed():
    adj_t, edge_index = adjacency("coo", SOURCES)  # torch.func refuses others
    others = [t[: edge_index.shape[1]] for t in (EDGE_ATTR, WEIGHT)]
    slope = grad(lambda *inputs: LAYERS["auto"](*inputs).square().sum())
    torch.testing.assert_close(slope(X, adj_t, *others), slope(X, edge_index, *others))


SQUARE = torch.eye(4)
OTHER_SPARSE = {
    "BSR": SQUARE.to_sparse_bsr((2, 2)),
    "BSC": SQUARE.to_sparse_bsc((2, 2)),
    "three dimensions": SQUARE[None].to_sparse(),
    "hybrid": torch.ones(4, 4, 2).to_sparse(2),
    "hybrid of rows": SQUARE.to_sparse(1),
    "batch of CSR": torch.stack([SQUARE, SQUARE]).to_sparse_csr(),
}


@pytest.mark.parametrize("backend", LAYERS)
@pytest.mark.parametrize("form", OTHER_SPARSE)
def test_other_sparse_tensors_are_refused_by_name(form, backend):
    with pytest.raises(ValueError, match=r"^edge_index: a sparse adjacency is .*; got torch\.sparse_.* Give its edges"):
        LAYERS[backend](X, OTHER_SPARSE[form], EDGE_ATTR, WEIGHT)


@pytest.mark.parametrize("layout", ["coo", "csr", "csc"])
def test_edges_of_an_adjacency_are_made_as_the_error_says(layout):
    adj_t, edge_index = adjacency(layout, SOURCES)
    with pytest.raises(ValueError, match=rf"^edge_index: expected \(2, E\), .* got torch.sparse_{layout} \(5, 5\)"):
        Edges(adj_t, SOURCES)
    if layout == "coo":
        found = Edges(adj_t.coalesce().indices().flip(0), SOURCES)
        assert torch.equal(torch.stack([found.source, found.target]), edge_index.int())


@pytest.mark.parametrize("layout", ["coo", "csr", "csc"])
def test_the_rows_of_an_adjacency_are_the_targets(layout):
    adj_t, edge_index = adjacency(layout, TARGETS)
    edge_attr, weight = (t[: edge_index.shape[1]] for t in (EDGE_ATTR, WEIGHT))
    found = LAYERS["auto"]((X, None), adj_t, edge_attr, weight)
    wanted = LAYERS["auto"]((X, None), edge_index, edge_attr, weight, size=(SOURCES, TARGETS))
    torch.testing.assert_close(found, wanted)
    with pytest.raises(ValueError, match=r"^size: the number of target nodes is 4 by edge_index, 5 by x"):
        LAYERS["auto"](X, adj_t, edge_attr, weight)


@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_an_adjacency_has_the_order_that_propagate_gives_it(layout):
    class Propagated(TensorProductConv):
        def forward(self, x, adj_t, edge_attr, weight):
            return self.propagate(adj_t, x=x, edge_attr=edge_attr, weight=weight)

    adj_t, edge_index = adjacency(layout, SOURCES)
    inputs = X, adj_t, EDGE_ATTR[: edge_index.shape[1]], WEIGHT[: edge_index.shape[1]]
    torch.testing.assert_close(LAYERS["auto"](*inputs), Propagated(*IRREPS)(*inputs))


def test_an_adjacency_in_the_other_flow_is_refused():
    with pytest.raises(ValueError, match=r"^edge_index: a sparse adjacency with flow='target_to_source'"):
        REVERSED(X, adjacency("coo", SOURCES)[0], EDGE_ATTR, WEIGHT)


def test_a_sparse_tensor_of_torch_sparse():
    torch_sparse = pytest.importorskip("torch_sparse")
    adj_t, edge_index = adjacency("csr", SOURCES)
    edge_attr, weight = (t[: edge_index.shape[1]] for t in (EDGE_ATTR, WEIGHT))
    given = torch_sparse.SparseTensor(row=edge_index[1], col=edge_index[0], sparse_sizes=tuple(adj_t.shape))
    torch.testing.assert_close(
        LAYERS["auto"](X, given, edge_attr, weight), LAYERS["auto"](X, edge_index, edge_attr, weight)
    )


@pytest.mark.parametrize(
    ("x", "found"), [((X,) * 3, "3 things"), ("x", "str"), ((X, 5), "2 things"), (None, "NoneType")]
)
def test_other_things_than_features_are_named(x, found):
    with pytest.raises(TypeError, match=f"^x: expected a tensor, or a pair of tensors .* got {found}"):
        LAYERS["auto"](x, EDGE_INDEX, EDGE_ATTR, WEIGHT)


@pytest.mark.parametrize("size", [5, (5, 5, 5), torch.tensor([5, 5]), "55"])
def test_other_things_than_sizes_are_named(size):
    with pytest.raises(TypeError, match=r"^size: expected a pair \(source nodes, target nodes\), got "):
        LAYERS["auto"](X, EDGE_INDEX, EDGE_ATTR, WEIGHT, size=size)
