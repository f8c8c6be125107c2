"""A small potential, and structures of a few atoms with their neighbours."""

import torch
from torch_geometric.data import Data

from pyg_cgconv.potential import Potential, RadiusGraph

CUTOFF = 3.0
HYDROGEN, CARBON, OXYGEN = 1, 6, 8
SHIFT, SCALE = {HYDROGEN: -13.5, CARBON: -1030.0, OXYGEN: -2040.0}, {HYDROGEN: 0.5, CARBON: 1.5, OXYGEN: 0.7}


def make(dtype="float64", species=(HYDROGEN, CARBON, OXYGEN), **options):
    torch.manual_seed(1)
    defaults = {
        "channels": 2,
        "lmax": 1,
        "layers": 2,
        "num_radial": 3,
        "radial_hidden": (4,),
        "avg_num_neighbors": 4.0,
        "shift": SHIFT,
        "scale": SCALE,
    }
    return Potential(species, CUTOFF, dtype=dtype, **{**defaults, **options})


def molecule(seed=0, n=6, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    z = torch.tensor([HYDROGEN, CARBON, OXYGEN])[torch.randint(3, (n,), generator=generator)]
    grid = torch.cartesian_prod(*[torch.arange(2.0)] * 3)[:n]
    pos = 1.5 * grid + 0.4 * torch.rand(n, 3, generator=generator)
    return RadiusGraph(CUTOFF)(Data(z=z, pos=pos.to(dtype)))


def crystal(seed=0):
    data = molecule(seed, n=3)
    cell = 2.5 * torch.eye(3) + 0.3 * torch.rand(1, 3, 3, generator=torch.Generator().manual_seed(seed))
    data.cell, data.pbc = cell.double(), torch.ones(1, 3, dtype=torch.bool)
    return RadiusGraph(CUTOFF)(data)


def close(actual, expected, **tolerances):
    torch.testing.assert_close(actual, expected, **{"rtol": 1e-9, "atol": 1e-11, **tolerances})
