"""Lists of edges by node, against loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyg_cgconv.ops._edges import Edges, _rows


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
