import copy
import pickle

import numpy as np
import pytest
import torch

pytest.importorskip("ase")
from ase import Atoms, units
from ase.build import bulk
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from torch_geometric.data import Batch, Data

from pyg_cgconv import ASECalculator, Potential, cuda_graphs
from pyg_cgconv.potential import Replay, VerletList
from pyg_cgconv.potential._replay import padded
from tests.recorded import recorded_graphs

CUTOFF = 3.0  # between two shells of copper


def potential(dtype="float64", **options):
    torch.manual_seed(0)
    return Potential(
        ["H", "C", "Cu"],
        CUTOFF,
        channels=8,
        lmax=2,
        layers=2,
        products=True,
        radial_species=True,
        radial_hidden=(8,),
        avg_num_neighbors=8.0,
        shift=[-1.0, -3.0, 2.0],
        scale=0.3,
        dtype=dtype,
        **options,
    )


def molecule(atoms=12):
    return Atoms("HC" * (atoms // 2), positions=4.0 * np.random.default_rng(0).random((atoms, 3)))


def crystal():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=0)
    return atoms


def slab():
    atoms = crystal()
    atoms.cell[2], atoms.pbc = 0.0, (True, True, False)
    return atoms


def lone_atom():
    return Atoms("C", positions=[[1.0, 2.0, 3.0]])


STRUCTURES = [molecule, crystal, slab, lone_atom]


def graph(atoms):
    return VerletList(CUTOFF, 0.5, torch.device("cpu"))(atoms)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("more", [0, 1, 57])
def test_edges_of_padding_count_nothing(structure, more):
    data, stress = graph(structure()), structure is crystal
    model = potential()
    expected = model(data, compute_stress=stress, create_graph=False)
    found = model(padded(data, data.num_edges + more, CUTOFF), compute_stress=stress, create_graph=False)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-13, atol=1e-13)


def edges_of(data):
    return [tuple(edge) for edge in torch.cat([data.edge_index.T, data.edge_shift], dim=1).tolist()]


def test_padding_leaves_the_structure_alone():
    data = graph(crystal())
    more = padded(data, data.num_edges + 5, CUTOFF)
    assert more.num_edges == data.num_edges + 5
    assert (more.edge_index[1].diff() >= 0).all()
    own = set(edges_of(data))
    assert [edge for edge in edges_of(more) if edge in own] == edges_of(data)
    others = torch.tensor([edge not in own for edge in edges_of(more)])
    source, target = more.edge_index[:, others]
    assert others.sum() == 5
    assert source.equal(target)
    assert ((more.edge_shift[others] @ more.cell[0]).norm(dim=1) >= 2 * CUTOFF).all()


def test_padding_is_shared_out_to_all_atoms():
    data = graph(molecule(12))
    before, after = (graph.edge_index[1].bincount() for graph in (data, padded(data, data.num_edges + 30, CUTOFF)))
    assert (after - before).tolist() == [3] * 6 + [2] * 6


def batch_of(structures, device="cpu"):
    """As TorchSimModel has it: lists in one tensor, ``ptr`` on the host."""
    batch = Batch.from_data_list([graph(atoms) for atoms in structures])
    names = ("z", "pos", "edge_index", "batch", "cell", "edge_shift")
    return Data(ptr=batch.ptr, **{name: batch[name].to(device) for name in names if name in batch})


@pytest.mark.parametrize("structures", [[molecule(4), molecule(6)], [crystal(), crystal().repeat((2, 1, 1))]])
def test_edges_of_padding_count_nothing_in_a_batch(structures):
    data, stress = batch_of(structures), "cell" in batch_of(structures)
    model, more = potential(), padded(data, data.num_edges + 57, CUTOFF)
    structure = more.batch[more.edge_index]
    assert structure[0].equal(structure[1])
    assert (more.edge_index[1].diff() >= 0).all()
    expected = model(data, compute_stress=stress, create_graph=False)
    for name, value in model(more, compute_stress=stress, create_graph=False).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-13, atol=1e-13)


def check_replay(model, of_batch, structures, captures):
    """Batches whose atoms move, by a replay against the potential itself."""
    replay, rng = Replay(model), np.random.default_rng(1)
    for step in range(4):
        for atoms in structures:
            atoms.positions += 0.05 * rng.standard_normal(atoms.positions.shape)
            if step == 2 and atoms.pbc.any():
                atoms.set_cell(1.01 * atoms.cell.array, scale_atoms=True)
        data = of_batch(structures)
        stress = "cell" in data
        assert replay.serves(data, stress)
        expected = model(data, compute_stress=stress, create_graph=False)
        found = replay(data, stress)
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-10)
    assert (replay.captures, replay.replays) == (captures, 4)


BATCHES = [[molecule(12)], [molecule(4), molecule(6)], [crystal(), crystal().repeat((2, 1, 1)), crystal()]]


@pytest.mark.parametrize("structures", BATCHES, ids=["one molecule", "molecules", "crystals"])
def test_recorded_replays_of_batches(structures):
    model = potential(backend="reference")
    model.validate = False
    with recorded_graphs():
        check_replay(model, batch_of, [atoms.copy() for atoms in structures], captures=1)


@pytest.mark.cuda
@pytest.mark.parametrize("structures", BATCHES, ids=["one molecule", "molecules", "crystals"])
def test_replays_of_batches(structures):
    model = potential().cuda()
    model.validate = False
    check_replay(model, lambda every: batch_of(every, "cuda"), [atoms.copy() for atoms in structures], captures=1)


def test_captures_end_with_a_warning_where_they_do_not_pay(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "PATIENCE", 2)
    model = potential(backend="reference")
    model.validate = False
    with recorded_graphs():
        replay = Replay(model)
        for atoms in (12, 8):
            assert replay.serves(graph(molecule(atoms)), False)
            replay(graph(molecule(atoms)), False)
        with pytest.warns(UserWarning, match=r"2 CUDA graphs were captured for 2 calls, because numbers of atoms"):
            assert not replay.serves(graph(molecule(6)), False)
        for _ in range(4):
            assert not replay.serves(graph(molecule(10)), False)  # and no second warning, which would be an error
        assert replay.serves(graph(molecule(10)), False)  # a size that stays
        assert not replay.serves(graph(molecule(6)), False)
        assert replay.serves(graph(molecule(8)), False)


@pytest.mark.cuda
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-11), ("float32", 2e-5)])
def test_replayed_are_the_results_without_a_graph(structure, dtype, tolerance):
    replayed = ASECalculator(potential(dtype), device="cuda")
    eager = ASECalculator(potential("float64"), device="cpu")
    rng, atoms = np.random.default_rng(1), structure()
    for _ in range(4):
        atoms.positions += 0.1 * rng.standard_normal(atoms.positions.shape)
        np.testing.assert_allclose(
            replayed.get_forces(atoms), eager.get_forces(atoms), rtol=tolerance, atol=10 * tolerance
        )
        assert replayed.results.keys() == eager.results.keys()
        for name, value in eager.results.items():
            np.testing.assert_allclose(replayed.results[name], value, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.cuda
def test_one_graph_serves_a_trajectory_with_many_lists():
    atoms = crystal().repeat(2)
    atoms.calc = ASECalculator(potential(), device="cuda", skin=0.1)
    MaxwellBoltzmannDistribution(atoms, temperature_K=600, rng=np.random.default_rng(0))
    before = atoms.get_total_energy()
    VelocityVerlet(atoms, 1.0 * units.fs).run(100)
    assert atoms.calc.neighbors.builds > 3
    assert atoms.calc._replay.captures == 1
    assert abs(atoms.get_total_energy() - before) / len(atoms) < 1e-3
    fresh = ASECalculator(potential(), device="cpu")
    np.testing.assert_allclose(atoms.get_forces(), fresh.get_forces(atoms), rtol=1e-9, atol=1e-10)


@pytest.mark.cuda
def test_other_structures_get_graphs_of_their_own():
    calculator = ASECalculator(potential(), device="cuda")
    fresh = ASECalculator(potential(), device="cpu")
    structures = [molecule(12), molecule(6), crystal(), molecule(12), crystal().repeat(2), lone_atom()]
    for atoms in structures:
        np.testing.assert_allclose(calculator.get_forces(atoms), fresh.get_forces(atoms), rtol=1e-9, atol=1e-10)
    assert calculator._replay.captures == len(structures) - 1  # an atom without neighbours needs no graph


@pytest.mark.cuda
def test_results_outlast_the_next_call():
    calculator, atoms = ASECalculator(potential(), device="cuda"), molecule()
    first = calculator.get_forces(atoms)
    kept = first.copy()
    atoms.positions += 0.1 * np.random.default_rng(3).standard_normal(atoms.positions.shape)
    assert abs(calculator.get_forces(atoms) - kept).max() > 1e-3
    np.testing.assert_array_equal(first, kept)


@pytest.mark.cuda
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda calculator: pickle.loads(pickle.dumps(calculator))])
def test_copies_work(copied):
    calculator, atoms = ASECalculator(potential(), device="cuda"), molecule()
    expected = calculator.get_forces(atoms)
    np.testing.assert_allclose(copied(calculator).get_forces(atoms), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.cuda
def test_without_capture_there_is_no_graph():
    calculator, atoms = ASECalculator(potential(), device="cuda", capture=False), molecule()
    expected = ASECalculator(potential(), device="cuda").get_forces(atoms)
    np.testing.assert_allclose(calculator.get_forces(atoms), expected, rtol=1e-11, atol=1e-11)
    assert calculator._replay is None
