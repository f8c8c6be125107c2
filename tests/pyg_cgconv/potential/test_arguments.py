"""What a potential is made of and called with, and what is wrong with it."""

import pytest
import torch
from torch_geometric.data import Batch

from pyg_cgconv.potential import Potential, RadiusGraph
from pyg_cgconv.potential._arguments import SYMBOLS

from .small_systems import CARBON, CUTOFF, HYDROGEN, OXYGEN, make, molecule


@pytest.fixture(scope="module")
def potential():
    return make().eval()


def test_hyperparameters_rebuild_the_model():
    first = make(hidden_irreps="3x0e+2x1o", scale=2.0, cutoff_power=5, dtype=torch.float32)
    again = Potential(**first.hyperparameters)
    again.load_state_dict(first.state_dict())
    assert again.hyperparameters == first.hyperparameters
    assert again.scale.tolist() == [2.0, 2.0, 2.0]


def test_species_by_symbol():
    assert make().hyperparameters["species"] == [HYDROGEN, CARBON, OXYGEN]
    assert Potential(["C", "H"], channels=2, lmax=0, layers=1, shift={"H": 1.0, "C": 2.0}).shift.tolist() == [2.0, 1.0]


def test_channels_by_degree():
    assert Potential([HYDROGEN], channels=[4, 2, 1], layers=1).hyperparameters["hidden_irreps"] == "4x0e+2x1o+1x2e"


def test_symbols_are_those_of_ase():
    data = pytest.importorskip("ase.data")
    assert data.chemical_symbols == SYMBOLS


# Mistakes


def without(name):
    data = molecule()
    del data[name]
    return data


def changed(name, value):
    data = molecule()
    data[name] = value
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (without("edge_index"), "data.edge_index: .*RadiusGraph"),
        (without("z"), "data.z: missing"),
        (without("pos"), "data.pos: missing"),
        (changed("z", torch.full((6,), 7)), r"data.z: .*\[7\].*\[1, 6, 8\]"),
        (changed("z", torch.full((6,), 300)), r"data.z: .*\[300\]"),
        (changed("z", torch.full((6,), -3)), r"data.z: .*\[-3\]"),
        (changed("z", torch.ones(6)), "data.z: .*integers"),
        (changed("z", torch.ones(5, dtype=torch.long)), "data.z: .*"),
        (changed("pos", torch.rand(6, 3)), "data.pos: .*float32"),
        (changed("pos", torch.rand(6, 2).double()), "data.pos: .*shape"),
        (changed("edge_index", torch.zeros(3, 4).long()), "data.edge_index: "),
        (changed("edge_index", torch.eye(2).long().to_sparse()), "data.edge_index: .* got torch.sparse_coo .*"),
        (changed("edge_index", torch.tensor([[2**32], [0]])), "data.edge_index: .* 0 to 5, got 0 to 4294967296"),
        (changed("edge_index", torch.tensor([[-1], [0]])), "data.edge_index: .* 6 atoms, 0 to 5, got -1 to 0"),
        (changed("batch", torch.tensor([0, 0, 0, -1, 0, 0])), "data.batch: .* 1 structures, 0 to 0, got -1 to 0"),
        (changed("edge_shift", torch.zeros(2, 3).double()), "data.edge_shift: "),
        (changed("cell", torch.eye(3).double()[None]), "data.edge_shift: missing"),
        (changed("cell", torch.eye(3).double().expand(2, 3, 3)), "data.cell: "),
        (changed("batch", torch.zeros(3).long()), "data.batch: "),
        (changed("pos", [[0.0, 0.0, 0.0]]), "data.pos: .*tensor"),
        (RadiusGraph(CUTOFF - 1)(molecule()), r"data.edge_index: .*RadiusGraph\(3\)"),
    ],
)
def test_bad_data_is_named(potential, data, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        potential(data)


@pytest.mark.parametrize("index", [2**32, 10, -1])
def test_an_index_of_no_atom_of_a_batch_is_named(potential, index):
    batch = Batch.from_data_list([molecule(0, 4), molecule(1, 6)])
    batch.edge_index[0, 0] = index
    with pytest.raises(ValueError, match=r"^data\.edge_index: expected numbers of 10 atoms, 0 to 9, got "):
        potential(batch)


def test_stress_needs_a_cell(potential):
    with pytest.raises(ValueError, match=r"^data\.cell: missing"):
        potential(molecule(), compute_stress=True)
    flat = molecule()
    flat.cell, flat.pbc = torch.zeros(1, 3, 3).double(), torch.zeros(1, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"^data\.cell: .*volume"):
        potential(RadiusGraph(CUTOFF)(flat), compute_stress=True)


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"species": []}, "species"),
        ({"species": ["Xx"]}, "species"),
        ({"species": [1, 1]}, "species"),
        ({"species": [0]}, "species"),
        ({"cutoff": 0.0}, "cutoff"),
        ({"layers": 0}, "layers"),
        ({"channels": [4, 4]}, "channels"),
        ({"channels": 0}, "channels"),
        ({"lmax": -1}, "lmax"),
        ({"hidden_irreps": "4x1o"}, "hidden_irreps"),
        ({"shift": [1.0, 2.0]}, "shift"),
        ({"scale": {6: 1.0}}, "scale"),
        ({"dtype": "float16"}, "dtype"),
        ({"avg_num_neighbors": 0.0}, "avg_num_neighbors"),
        ({"cutoff_power": 1}, "power"),
        ({"backend": "gpu"}, "backend"),
    ],
)
def test_bad_arguments_are_named(options, argument):
    with pytest.raises(ValueError, match=f"^{argument}:"):
        Potential(**{"species": [HYDROGEN], **options})


def test_default_dtype_is_torchs():
    assert Potential([HYDROGEN], channels=2, layers=1).dtype == torch.get_default_dtype()
