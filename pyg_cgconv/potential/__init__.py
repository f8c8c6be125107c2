"""An interatomic potential: energies, forces and stresses of batches of atoms.

    potential     Potential: the model; blocks: its network
    outputs       what the network learned of atoms, and the energies, charges and dipoles of it
    rounds        all edges at once, or piece by piece in large systems
    atoms         what it reads of a batch, checked
    prepared      prepared: a batch read ahead of its step
    edge_functions  spherical harmonics and radial functions of edges, and their slopes
    zbl           ZBL: the repulsion of nuclei
    moments       Moments: charges and dipoles
    derivatives   forces, virial, volume, Hessian
    arguments     its arguments, checked
    file          potential.pt
    heads         with_heads: several levels of theory on one body
    species       with_species: the same potential, for more elements
    ghosts        neighbours that other processes compute
    given         a potential as an engine takes it
    lattice       cells of neighbour searches
    tree, bins    the search on a CPU, and that on a GPU
    neighbors     RadiusGraph, radius_graph: which atoms see each other
    calculator    ASECalculator: the potential in ASE; verlet: VerletList, its neighbours
    committee     CommitteeCalculator: several potentials and their spread
    replay        Replay: energy and forces as one CUDA graph
    lammps        LAMMPSPotential: the potential in LAMMPS
    torch_sim     TorchSimModel, BatchedList: the potential in torch-sim

Import from here, not from the modules. The calculators and VerletList need ASE, TorchSimModel and BatchedList need
torch-sim: they are loaded when they are first asked for.
"""

from typing import TYPE_CHECKING

from .._lazy import attach
from ._derivatives import cell_volumes
from ._heads import with_heads
from ._lammps import LAMMPS_SUFFIXES, LAMMPSPotential, write_lammps
from ._neighbors import RadiusGraph, radius_graph
from ._potential import Potential
from ._prepared import Prepared, prepared
from ._replay import Replay
from ._species import with_species

if TYPE_CHECKING:
    from ._calculator import ASECalculator as ASECalculator
    from ._committee import CommitteeCalculator as CommitteeCalculator
    from ._torch_sim import BatchedList as BatchedList
    from ._torch_sim import TorchSimModel as TorchSimModel
    from ._verlet import VerletList as VerletList

# A star import must need neither ASE nor torch-sim: no ASECalculator, no TorchSimModel.
__all__ = [
    "LAMMPS_SUFFIXES",
    "LAMMPSPotential",
    "Potential",
    "Prepared",
    "RadiusGraph",
    "Replay",
    "cell_volumes",
    "prepared",
    "radius_graph",
    "with_heads",
    "with_species",
    "write_lammps",
]

if not TYPE_CHECKING:  # to a type checker, a module with __getattr__ has every name
    __getattr__, __dir__ = attach(
        __name__,
        {
            "ASECalculator": "._calculator",
            "BatchedList": "._torch_sim",
            "CommitteeCalculator": "._committee",
            "TorchSimModel": "._torch_sim",
            "VerletList": "._calculator",
        },
    )
