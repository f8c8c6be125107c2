from itertools import product

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data

from pyg_cgconv.potential import RadiusGraph, _bins, _neighbors, radius_graph
from tests.random_examples import examples


@pytest.fixture(params=["tree", "all pairs", "bins"], autouse=True)
def search(request, monkeypatch):
    """What finds neighbours on a CPU, and what does so on a GPU, here on a CPU and in small chunks."""
    if request.param != "tree":
        monkeypatch.setattr(_neighbors, "searched_in_tree", _bins.searched_on_gpu)
        monkeypatch.setattr(_bins, "ALL_PAIRS", _bins.ALL_PAIRS if request.param == "all pairs" else 0)
        monkeypatch.setattr(_bins, "CANDIDATES", 50)


def brute_force(pos, cutoff, cell, pbc):
    """Every (target, source, shift) closer than the cutoff, over all images that can be."""
    periodic = cell[pbc]
    normals = np.linalg.svd(periodic)[2][len(periodic) :] if len(periodic) else np.eye(3)
    full = cell.copy()
    full[~pbc] = normals
    spacing = 1 / np.linalg.norm(np.linalg.inv(full), axis=0)
    reach = np.ceil((np.linalg.norm(np.ptp(pos, axis=0)) + cutoff) / spacing).astype(int)
    shifts = np.array(list(product(*(range(-r, r + 1) if p else (0,) for r, p in zip(reach, pbc, strict=True)))))
    differences = (pos[None, :] - pos[:, None])[None] + (shifts @ cell)[:, None, None]
    edges = [(i, j, *shifts[s]) for s, i, j in np.argwhere(np.linalg.norm(differences, axis=-1) < cutoff)]
    return sorted(tuple(map(int, edge)) for edge in edges if edge[0] != edge[1] or any(edge[2:]))


def listed(edge_index, edge_shift):
    source, target = edge_index.tolist()
    return list(zip(target, source, *edge_shift.long().T.tolist(), strict=True))


@st.composite
def structures(draw):
    seed = draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    pbc = np.array(draw(st.tuples(st.booleans(), st.booleans(), st.booleans())))
    lengths = rng.uniform(1.5, 5.0, 3)
    cell = np.diag(lengths) + rng.uniform(-0.5, 0.5, (3, 3)) * draw(st.sampled_from([0.0, 1.0]))
    if draw(st.booleans()):
        cell[~pbc] = 0.0
    spread = draw(st.sampled_from([1.0, 3.0, 6.0]))  # atoms outside the cell too
    pos = rng.normal(size=(draw(st.integers(1, 6)), 3)) * spread
    return pos, draw(st.floats(0.5, 4.0)), cell, pbc


@examples(50)
@given(structures())
def test_equal_to_brute_force(structure):
    pos, cutoff, cell, pbc = structure
    assert listed(*radius_graph(pos, cutoff, cell, pbc)) == brute_force(pos, cutoff, cell, pbc)


def test_molecule_equals_a_distance_matrix():
    pos = torch.rand(40, 3, dtype=torch.float64) * 8
    edge_index, edge_shift = radius_graph(pos, 3.0)
    near = (torch.cdist(pos, pos) < 3.0) & ~torch.eye(40, dtype=torch.bool)
    assert torch.equal(edge_index, near.nonzero().T.flip(0))
    assert edge_index.dtype == torch.int64
    assert edge_shift.shape == (edge_index.shape[1], 3)
    assert (edge_shift == 0).all()


@pytest.mark.parametrize("pbc", [[True, True, True], [True, False, True], [False, False, False]])
def test_liquid_equals_ase(pbc):
    rng = np.random.default_rng(0)
    cell = np.array([[14.0, 0.0, 0.0], [5.0, 12.0, 0.0], [-4.0, 3.0, 11.0]])
    atoms = Atoms("H180", positions=rng.uniform(-0.5, 1.5, (180, 3)) @ cell, cell=cell, pbc=pbc)
    i, j, shift = neighbor_list("ijS", atoms, 4.0)
    expected = sorted(zip(i.tolist(), j.tolist(), *shift.T.tolist(), strict=True))
    assert listed(*radius_graph(atoms.positions, 4.0, atoms.cell, atoms.pbc)) == expected


def test_no_neighbor_is_dropped():
    pos = torch.rand(200, 3)  # all within reach of each other: 199 neighbours an atom
    edge_index, _ = radius_graph(pos, 5.0)
    assert edge_index.shape[1] == 200 * 199


def test_an_atom_sees_its_images_and_not_itself():
    edge_index, edge_shift = radius_graph(torch.zeros(1, 3), 2.5, torch.eye(3) * 2.0)
    assert (edge_index == 0).all()
    assert sorted(edge_shift.tolist()) == sorted(
        [float(s * (k == axis)) for k in range(3)] for axis in range(3) for s in (-1, 1)
    )


def test_the_cutoff_itself_is_outside():
    pos = torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    assert radius_graph(pos, 2.0)[0].shape == (2, 0)
    assert radius_graph(pos, 2.0 + 1e-6)[0].shape == (2, 2)


def test_coincident_atoms_are_neighbors():
    assert radius_graph(torch.zeros(2, 3), 1.0)[0].tolist() == [[1, 0], [0, 1]]


def test_each_edge_has_its_reverse_even_where_shells_touch_the_cutoff():
    cell = torch.eye(3, dtype=torch.float64) * (1 / 3 + 2.7)
    pos = torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0.5]], dtype=torch.float64) @ cell + 1 / 7
    edges = listed(*radius_graph(pos, float(cell[0, 0]), cell))
    assert {(j, i, -a, -b, -c) for i, j, a, b, c in edges} == set(edges)


def test_a_shell_at_the_cutoff_is_out_of_all_lists():
    """Its two vectors are 5 - 9e-16 long, or 5, by the order in which their numbers are added."""
    cell = 2 * np.array([[1.0, 0.0, 0.0], [2.3, 1.0, 0.0], [-1.7, 3.1, 1.0]])
    assert [-14, 5, -2] not in radius_graph(np.zeros((1, 3)), 5.0, cell)[1].tolist()


@pytest.mark.parametrize("scale", [1e3, 1e6, 1e9])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_atoms_far_apart(scale, axes):
    pos = torch.zeros(4, 3, dtype=torch.float64)
    pos[1, :axes] = scale
    pos[2], pos[3] = pos[1] + 0.5, pos[0] - 0.5
    assert radius_graph(pos, 2.0)[0].tolist() == [[3, 2, 1, 0], [0, 1, 2, 3]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shift_has_the_dtype_of_the_positions(dtype):
    _, edge_shift = radius_graph(torch.rand(3, 3, dtype=dtype), 3.0, torch.eye(3, dtype=dtype) * 2)
    assert edge_shift.dtype == dtype
    assert torch.equal(edge_shift, edge_shift.round())


def crystal(n=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    cell = torch.eye(3) * 3 + torch.rand(1, 3, 3, generator=generator)
    return Data(
        z=torch.ones(n, dtype=torch.long),
        pos=torch.rand(n, 3, generator=generator) * 5,
        cell=cell,
        pbc=torch.tensor([[True, True, False]]),
    )


def test_transform_fills_a_crystal():
    data = RadiusGraph(4.0)(crystal())
    expected = radius_graph(data.pos, 4.0, data.cell[0], [True, True, False])
    assert torch.equal(data.edge_index, expected[0])
    assert torch.equal(data.edge_shift, expected[1])
    assert data.edge_cutoff.tolist() == [4.0]
    vectors = data.pos[data.edge_index[0]] - data.pos[data.edge_index[1]] + data.edge_shift @ data.cell[0]
    assert vectors.norm(dim=1).max() < 4.0
    assert data.validate()


def test_transform_of_a_molecule_has_no_shift():
    data = RadiusGraph(4.0)(Data(pos=torch.rand(5, 3)))
    assert "edge_shift" not in data
    assert data.edge_index.shape == (2, 20)


def test_transform_gives_cells_that_batch():
    data = crystal()
    data.cell, data.pbc = data.cell[0], True
    data = RadiusGraph(4.0)(data)
    assert data.cell.shape == (1, 3, 3)
    assert data.pbc.tolist() == [[True, True, True]]


def test_batch_keeps_edges_and_order():
    singles = [RadiusGraph(4.0)(crystal(n, seed=n)) for n in (3, 1, 4)]
    batch = Batch.from_data_list(singles)
    assert batch.cell.shape == (3, 3, 3)
    assert batch.pbc.shape == (3, 3)
    assert (batch.edge_index[1].diff() >= 0).all()
    shifted = torch.einsum("es,esx->ex", batch.edge_shift, batch.cell[batch.batch[batch.edge_index[1]]])
    vectors = batch.pos[batch.edge_index[0]] - batch.pos[batch.edge_index[1]] + shifted
    assert vectors.norm(dim=1).max() < 4.0
    assert vectors.shape[0] == sum(single.edge_index.shape[1] for single in singles)


def test_transform_of_a_batch_is_the_batch_of_transforms():
    singles = [crystal(n, seed=n) for n in (3, 1, 4)]
    batch = RadiusGraph(4.0)(Batch.from_data_list(singles))
    expected = Batch.from_data_list([RadiusGraph(4.0)(single) for single in singles])
    assert torch.equal(batch.edge_index, expected.edge_index)
    assert torch.equal(batch.edge_shift, expected.edge_shift)


def test_the_original_is_left_alone():
    data = crystal()
    RadiusGraph(4.0)(data)
    assert "edge_index" not in data


def test_ase_atoms():
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    atoms.positions.flags.writeable = False
    edge_index, edge_shift = radius_graph(atoms.positions, 6.0, atoms.cell, atoms.pbc)
    i, j, shift = neighbor_list("ijS", atoms, 6.0)
    expected = sorted(zip(i.tolist(), j.tolist(), *shift.T.tolist(), strict=True))
    assert listed(edge_index, edge_shift) == expected


def test_no_atoms():
    edge_index, edge_shift = radius_graph(torch.zeros(0, 3), 3.0, torch.eye(3))
    assert edge_index.shape == (2, 0)
    assert edge_shift.shape == (0, 3)


POS = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: radius_graph(torch.zeros(2, 2), 3.0), "pos:"),
        (lambda: radius_graph(torch.zeros(2, 3, dtype=torch.long), 3.0), "pos:"),
        (lambda: radius_graph(torch.full((2, 3), torch.nan), 3.0), "pos:"),
        (lambda: radius_graph([[0.0, 0.0, 0.0], [0.0, -np.inf, 0.0]], 3.0), "pos: atom 1 has"),
        (lambda: radius_graph(POS, 0.0), "cutoff:"),
        (lambda: radius_graph(POS, float("nan")), "cutoff:"),
        (lambda: radius_graph(POS, 3.0, torch.eye(2)), "cell:"),
        (lambda: radius_graph(POS, 3.0, torch.zeros(3, 3)), "cell:"),
        (lambda: radius_graph(POS, 3.0, None, True), "cell:"),
        (lambda: radius_graph(POS, 3.0, torch.eye(3), [True, False]), "pbc:"),
        (lambda: RadiusGraph(-1.0), "cutoff:"),
        (lambda: RadiusGraph(3.0)(Data(z=torch.ones(2))), "data.pos:"),
        (lambda: RadiusGraph(3.0)(Data(pos=POS, pbc=torch.tensor([[True] * 3]))), "cell:"),
    ],
)
def test_mistakes_are_named(call, argument):
    with pytest.raises(ValueError, match=f"^{argument}"):
        call()
