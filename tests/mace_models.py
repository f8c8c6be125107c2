"""Models of MACE and structures for them, which its tests share."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from e3nn import o3
from mace import data, modules, tools
from mace.tools import torch_geometric

from .drop_ins import default_dtype

ELEMENTS = 6, 8
USUAL = "RealAgnosticInteractionBlock", "RealAgnosticResidualInteractionBlock"


@pytest.fixture(scope="module", autouse=True)
def float64():
    with default_dtype(torch.float64):
        yield


def structure():
    atoms = bulk("C", "diamond", a=3.6, cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.numbers[::2] = 8
    return atoms


def model(first=USUAL[0], others=USUAL[1], kind=modules.ScaleShiftMACE, elements=ELEMENTS):
    torch.manual_seed(0)
    scaled = kind is modules.ScaleShiftMACE
    return kind(
        r_max=3.0,
        num_bessel=4,
        num_polynomial_cutoff=5,
        max_ell=2,
        interaction_cls=modules.interaction_classes[others],
        interaction_cls_first=modules.interaction_classes[first],
        num_interactions=2,
        num_elements=len(elements),
        hidden_irreps=o3.Irreps("4x0e+4x1o"),
        MLP_irreps=o3.Irreps("4x0e"),
        atomic_energies=-np.arange(1.0, 1 + len(elements)),
        avg_num_neighbors=8.0,
        atomic_numbers=list(elements),
        correlation=2,
        gate=torch.nn.functional.silu,
        radial_MLP=[8, 8],
        **(dict(atomic_inter_scale=1.3, atomic_inter_shift=0.1) if scaled else {}),
    )


def batch(atoms=None, elements=ELEMENTS):
    config = data.config_from_atoms(atoms or structure())
    graph = data.AtomicData.from_config(config, z_table=tools.AtomicNumberTable(list(elements)), cutoff=3.0)
    loader = torch_geometric.dataloader.DataLoader([graph], batch_size=1)
    return next(iter(loader)).to_dict()
