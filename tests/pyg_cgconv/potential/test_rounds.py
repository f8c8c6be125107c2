"""Message passing piece by piece, against all edges at once."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from pyg_cgconv import ASECalculator, Potential, RadiusGraph
from pyg_cgconv._torch import storage_is_shared_by_nobody
from pyg_cgconv.potential import LAMMPSPotential
from pyg_cgconv.potential._rounds import _bounds, edges_at_a_time, edges_that_fit
from tests.lammps_data import LAMMPSData

pytest.importorskip("ase")
from ase import Atoms

CUTOFF, SPECIES = 3.0, [1, 6, 8]
EVERYTHING = dict(compute_stress=True, compute_energies=True, compute_stresses=True)


def make(species=SPECIES):
    torch.manual_seed(1)
    size = dict(channels=2, lmax=1, layers=2, num_radial=3, radial_hidden=(4,), avg_num_neighbors=4.0)
    of_all_kinds = dict(products=True, radial_species=True)
    return Potential(species, CUTOFF, scale=100.0, dtype="float64", **size, **of_all_kinds).eval()


@pytest.fixture(params=[SPECIES, [*range(1, 13)]], ids=["three species", "twelve species"], scope="module")
def potential(request):
    return make(request.param)


@pytest.fixture(autouse=True)
def all_at_once(request):
    """After each test, for the next."""
    yield
    if "potential" in request.fixturenames:
        request.getfixturevalue("potential").edges_at_a_time = None


def crystal(seed=0, atoms=12):
    """The last atom has no neighbours."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.cartesian_prod(torch.arange(3.0), torch.arange(2.0), torch.arange(2.0))[:atoms]
    pos = 1.8 * grid.double() + 0.3 * torch.rand(len(grid), 3, generator=generator)
    pos[-1] = torch.tensor([10.0, 0.0, 0.0])
    data = Data(z=torch.tensor([1, 6, 8])[torch.arange(len(pos)) % 3], pos=pos)
    data.cell = torch.diag(torch.tensor([20.0, 3.6, 3.6])).double()[None]
    return RadiusGraph(CUTOFF)(data)


def shuffled(data):
    order = torch.randperm(data.num_edges, generator=torch.Generator().manual_seed(0))
    other = data.clone()
    other.edge_index, other.edge_shift = data.edge_index[:, order], data.edge_shift[order]
    return other


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert value.abs().max() > 0, name
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-12 * value.abs().max().item())


@pytest.mark.parametrize("edges", [pytest.param(1, marks=pytest.mark.slow), 37])
@pytest.mark.parametrize("order", [lambda data: data, shuffled], ids=["sorted", "shuffled"])
def test_energy_and_derivatives(potential, edges, order):
    data = order(Batch.from_data_list([crystal(0), crystal(1, atoms=7)]))
    assert data.num_edges > 150
    expected = potential(data, **EVERYTHING)
    potential.edges_at_a_time = edges
    assert_equal(potential(data, **EVERYTHING), expected)
    with torch.inference_mode():
        assert_equal(potential(data, **EVERYTHING), expected)
        energy = potential(data, compute_forces=False)["energy"]
    torch.testing.assert_close(energy, expected["energy"], rtol=1e-12, atol=0)


def test_gradients_of_a_loss_on_forces(potential):
    def gradients():
        out = potential(crystal(), create_graph=True)
        loss = out["forces"].square().sum() + out["energy"].sum()
        return torch.autograd.grad(loss, list(potential.parameters()), allow_unused=True)

    expected = gradients()
    potential.edges_at_a_time = 37
    for found, gradient in zip(gradients(), expected, strict=True):
        assert (found is None) == (gradient is None)
        if gradient is not None:
            torch.testing.assert_close(found, gradient, rtol=1e-12, atol=1e-12 * gradient.abs().max().item())


def test_hessian_of_autograd():
    potential, data = make(), crystal()

    def forces_at(pos):
        moved = data.clone()
        moved.pos = pos
        return potential(moved, create_graph=True)["forces"]

    expected = torch.func.jacrev(forces_at)(data.pos)
    potential.edges_at_a_time = 37
    found = torch.autograd.functional.jacobian(forces_at, data.pos, vectorize=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * expected.abs().max().item())


def test_transforms_take_all_edges_at_once():
    potential, data = make(), crystal()
    potential.edges_at_a_time = 10
    vectors = SimpleNamespace(vectors=data.pos, species=data.z)
    assert edges_at_a_time(potential, vectors) == 10
    seen = []
    torch.func.grad(lambda pos: (seen.append(edges_at_a_time(potential, vectors)), pos.sum())[1])(data.pos)
    with torch.autograd.forward_ad.dual_level():
        seen.append(edges_at_a_time(potential, vectors))
    assert seen == [None, None]


def weights_alive(potential, data):
    """The most bytes of edges' weights that are in memory at once."""
    kept, most = [], 0

    def note(module, inputs, weights):
        nonlocal most
        kept.append(weights.untyped_storage())
        most = max(most, sum(s.nbytes() for s in kept if s is kept[-1] or not storage_is_shared_by_nobody(s)))

    hooks = [block.radial.register_forward_hook(note) for block in potential.blocks]
    potential(data)
    for hook in hooks:
        hook.remove()
    return most


def test_pieces_need_the_memory_of_one():
    potential, data = make(), crystal()
    weights = [8 * block.conv.weight_numel for block in potential.blocks]
    assert weights_alive(potential, data) == data.num_edges * sum(weights)
    potential.edges_at_a_time = 30
    assert weights_alive(potential, data) <= 2 * 30 * max(weights) < data.num_edges * max(weights)


@pytest.mark.slow
def test_calculator():
    potential, atoms = make(), Atoms("HCO" * 4, positions=crystal().pos.numpy(), cell=[20.0, 3.6, 3.6], pbc=True)
    expected = ASECalculator(potential).get_property("forces", atoms), ASECalculator(potential).get_hessian(atoms)
    potential.edges_at_a_time = 20
    calculator = ASECalculator(potential)
    assert calculator.potential.edges_at_a_time == 20
    np.testing.assert_allclose(calculator.get_property("forces", atoms), expected[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(calculator.get_hessian(atoms), expected[1], rtol=0, atol=1e-11)


def test_atoms_of_other_processes():
    atoms = Atoms("HCO" * 4, positions=crystal().pos.numpy(), cell=[20.0, 3.6, 3.6], pbc=True)
    found = []
    for edges in (None, 20):
        potential, data = make(), LAMMPSData(atoms, SPECIES, CUTOFF)
        potential.edges_at_a_time = edges
        LAMMPSPotential(potential).compute_forces(data)
        found.append(data)
    np.testing.assert_allclose(found[1].forces, found[0].forces, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found[1].eatoms, found[0].eatoms, rtol=0, atol=1e-12)


def test_whole_numbers_of_numpy():
    potential = make()
    potential.edges_at_a_time = np.int64(20)
    assert type(potential.edges_at_a_time) is int


@pytest.mark.parametrize("given", [0, -5, 1e6, "all", True])
def test_numbers_that_make_no_sense(given):
    with pytest.raises(ValueError, match=r"^edges_at_a_time: expected a positive whole number, or None, got "):
        make().edges_at_a_time = given


def test_edges_of_one_target_stay_together():
    degrees = np.array([3, 0, 9, 2, 2, 0, 0, 4, 1])
    bounds = _bounds(degrees.cumsum(), most=5)
    assert bounds == [0, 2, 3, 7, 9]
    assert [degrees[a:b].sum() for a, b in pairwise(bounds)] == [3, 9, 4, 5]


def test_what_fits_a_gpu():
    """The preset frames-medium and a liquid of 52 neighbours; a CPU measured 11.9 kB an edge and 78 kB an atom."""
    potential = Potential(["H", "C", "O"], 5.0, products=True, radial_species=True, dtype="float32")
    for atoms in (10_000, 100_000, 1_000_000):
        edges = 52 * atoms
        need = 11_900 * edges + 78_000 * atoms
        assert edges_that_fit(potential, edges, atoms, int(2.2 * need)) is None
        fits = edges_that_fit(potential, edges, atoms, int(1.8 * need))
        assert edges / 10 < fits < edges / 3
    assert edges_that_fit(potential, 5_200_000, 100_000, 80 * 10**9) == pytest.approx(0.95e6, rel=0.1)
    assert edges_that_fit(potential, 5_200_000, 100_000, 10**9) == 100_000
