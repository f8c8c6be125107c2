import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from datasets import EthanolPBE, QM9Sample, ToDtype
from pyg_cgconv import Potential, RadiusGraph


@pytest.mark.slow
def test_all_but_energies_and_integers():
    data = EthanolPBE(transform=ToDtype(torch.float32), pre_transform=RadiusGraph(4.0))[0]
    assert {name: value.dtype for name, value in data.to_dict().items()} == {
        "z": torch.int64,
        "pos": torch.float32,
        "energy": torch.float64,
        "forces": torch.float32,
        "edge_index": torch.int64,
        "edge_cutoff": torch.float64,
    }
    assert QM9Sample(transform=ToDtype(torch.float32))[0].y.dtype == torch.float64


def test_crystals():
    data = Data(pos=torch.zeros(1, 3).double(), cell=torch.eye(3).double()[None], pbc=torch.ones(1, 3).bool())
    found = ToDtype(torch.float32)(RadiusGraph(1.5)(data))
    assert found.cell.dtype == found.edge_shift.dtype == torch.float32
    assert found.pbc.dtype == torch.bool


def test_the_data_set_itself_stays():
    dataset = EthanolPBE()
    dataset.transform = ToDtype(torch.float32)
    assert dataset[0].pos.dtype == torch.float32
    dataset.transform = None
    assert dataset[0].pos.dtype == torch.float64


@pytest.mark.slow
def test_it_serves_batches_and_caches(tmp_path):
    batch = next(iter(DataLoader(EthanolPBE()[:4], batch_size=4)))
    assert ToDtype(torch.float32)(batch).pos.dtype == torch.float32
    for dtype in (torch.float32, torch.float64):
        kept = EthanolPBE(pre_transform=ToDtype(dtype), pre_filter=None, cache=tmp_path)
        assert kept[0].pos.dtype == dtype
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_a_potential_gives_the_same_in_either():
    potential = Potential(["H", "C", "O"], cutoff=4.0, channels=4, layers=1)
    data = EthanolPBE(pre_transform=RadiusGraph(4.0))[0]
    exact, rounded = potential(data), potential(ToDtype(torch.float32)(data))
    torch.testing.assert_close(rounded["forces"], exact["forces"].to(rounded["forces"].dtype), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", torch.int64, None])
def test_mistakes_are_named(dtype):
    with pytest.raises(TypeError, match="dtype: expected a floating-point type such as"):
        ToDtype(dtype)


def test_exact_is_names():
    with pytest.raises(TypeError, match="exact: expected names of attributes"):
        ToDtype(torch.float32, "energy")
