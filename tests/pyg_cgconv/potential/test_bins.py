"""The search on a GPU, run on a CPU, against the k-d tree: the same edges in the same order."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from pyg_cgconv.potential import RadiusGraph, _bins, _neighbors, radius_graph
from tests.random_examples import examples

DIRECTIONS = [[True, True, True], [True, False, True], [False, True, False], [False, False, False]]


@pytest.fixture(params=["all pairs", "bins"])
def on_gpu(request, monkeypatch):
    """`radius_graph` as it is on a GPU, by one of its ways."""
    monkeypatch.setattr(_bins, "ALL_PAIRS", 1 << 60 if request.param == "all pairs" else 0)
    monkeypatch.setattr(_bins, "CANDIDATES", 1000)

    def search(*arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_neighbors, "searched_in_tree", _bins.searched_on_gpu)
            return radius_graph(*arguments)

    return search


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    assert not torch.signbit(found[1][found[1] == 0]).any()


@st.composite
def many_atoms(draw):
    """Up to 80, in cells of any form, most of them several bins wide; some atoms far outside."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    skew = draw(st.sampled_from([0.0, 0.5, 3.0]))
    cell = np.diag(rng.uniform(2, 12, 3)) @ (np.eye(3) + np.triu(rng.uniform(-skew, skew, (3, 3)), 1))
    cell = cell @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    fractional = rng.uniform(-0.5, 1.5, (draw(st.integers(0, 80)), 3))
    fractional[::3] += rng.integers(-1000, 1000, 3) * draw(st.booleans())
    return fractional @ cell, draw(st.floats(0.5, 4.0)), cell, draw(st.sampled_from(DIRECTIONS))


@examples(40)
@given(structure=many_atoms())
def test_same_edges_as_the_tree(on_gpu, structure):
    assert_same(on_gpu(*structure), radius_graph(*structure))


@examples(40)
@given(
    cell=st.lists(st.integers(-3, 3), min_size=9, max_size=9).map(lambda n: np.reshape(n, (3, 3)) + 5.0 * np.eye(3)),
    squared=st.integers(1, 60),
    unit=st.sampled_from([1.0, 0.7, 1 / 3 + 0.5]),
    origin=st.tuples(*[st.sampled_from([0.0, 1 / 3, 0.1, -7.7])] * 3),
)
def test_shells_at_the_cutoff_are_in_both_or_in_none(on_gpu, cell, squared, unit, origin):
    """Sites of a grid of a half, in cells whose vectors are whole numbers: many distances are the cutoff, to rounding,
    so that the order of additions decides."""
    sites = np.stack(np.meshgrid(*[[0.0, 0.5, 3.0]] * 3), axis=-1).reshape(-1, 3) + origin
    structure = unit * sites, unit * np.sqrt(squared) / 2, unit * cell
    assert_same(on_gpu(*structure), radius_graph(*structure))


@pytest.mark.parametrize("cutoff", [2.5, 5.0, 5.0000001, 7.5, 15.0])
def test_cells_as_wide_as_the_cutoff(on_gpu, cutoff):
    """And half as wide, and twice: where the numbers of images and of bins change."""
    pos = np.random.default_rng(0).uniform(0, 5, (8, 3))
    pos[0], pos[1] = 0, [5.0, -1e-17, 5.0]  # on faces
    structure = pos, cutoff, np.diag([5.0, 10.0, 15.0])
    assert_same(on_gpu(*structure), radius_graph(*structure))


def test_atoms_without_an_extent(on_gpu):
    pos = np.zeros((3, 3))
    assert_same(on_gpu(pos, 1.0), radius_graph(pos, 1.0))
    assert_same(on_gpu(pos, 1.0, np.diag([2.0, 0, 0]), [True, False, False]), radius_graph(pos, 1.0))


class Launches(TorchDispatchMode):
    """Counts operations that compute something, and those among them for whose result a host waits."""

    WAITING = ("nonzero", "_local_scalar_dense", "_unique2", "repeat_interleave")

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        is_view = any(r.alias_info and not r.alias_info.is_write for r in operation._schema.returns)
        if not is_view:
            self.operations.append(operation.overloadpacket.__name__)
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize(("atoms", "most", "waits"), [(1000, 21, 2), (2200, 78, 4)])
def test_a_search_is_few_launches_and_waits(monkeypatch, atoms, most, waits):
    monkeypatch.setattr(_neighbors, "searched_in_tree", _bins.searched_on_gpu)
    cell = (10.0 * atoms) ** (1 / 3) * torch.eye(3, dtype=torch.float64)
    pos = torch.rand(atoms, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) @ cell
    with Launches() as launches:
        edge_index, _ = radius_graph(pos, 5.0, cell)
    assert edge_index.shape[1] > 50 * atoms
    assert len(launches.operations) <= most  # and one or two copies from the host
    assert sum(launches.operations.count(name) for name in Launches.WAITING) == waits


@pytest.mark.cuda
@pytest.mark.parametrize("pbc", DIRECTIONS)
@pytest.mark.parametrize("atoms", [0, 5, 1000, 3000, 20_000])
def test_on_a_gpu_as_on_a_cpu(atoms, pbc):
    cell = torch.tensor([[30.0, 0.0, 0.0], [9.0, 25.0, 0.0], [-7.0, 4.0, 20.0]], dtype=torch.float64)
    pos = 2 * torch.rand(atoms, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) @ cell
    found = radius_graph(pos.cuda(), 5.0, cell, pbc)
    assert all(each.is_cuda for each in found)
    assert_same([each.cpu() for each in found], radius_graph(pos, 5.0, cell, pbc))


@pytest.mark.cuda
@pytest.mark.parametrize("repeats", [2, 8, 14])
def test_shells_at_the_cutoff_on_a_gpu(repeats):
    """The third shell of a simple cubic crystal, at the square root of 3."""
    grid = torch.stack(torch.meshgrid(*[torch.arange(repeats, dtype=torch.float64)] * 3, indexing="ij"), -1)
    pos, cell = 1.1 * grid.view(-1, 3) + 0.3, 1.1 * repeats * torch.eye(3, dtype=torch.float64)
    for cutoff in (1.1 * 3**0.5, 2.2, 1.1 * 5**0.5):
        found = radius_graph(pos.cuda(), cutoff, cell)
        assert_same([each.cpu() for each in found], radius_graph(pos, cutoff, cell))


@pytest.mark.cuda
def test_float32_and_cells_on_a_gpu():
    from torch_geometric.data import Data

    generator = torch.Generator().manual_seed(0)
    pos, cell = 15 * torch.rand(400, 3, generator=generator), 15 * torch.eye(3)[None]
    data = Data(pos=pos, cell=cell, pbc=torch.tensor([[True, True, False]]))
    expected, found = RadiusGraph(4.0)(data), RadiusGraph(4.0)(data.clone().to("cuda"))
    for name in ("edge_index", "edge_shift", "edge_cutoff", "cell", "pbc"):
        assert found[name].is_cuda
        assert torch.equal(found[name].cpu(), expected[name])
    pos[3, 1] = torch.nan
    with pytest.raises(ValueError, match=r"^pos: atom 3 has a coordinate that is not finite"):
        radius_graph(pos.cuda(), 4.0, cell)
