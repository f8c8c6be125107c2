"""An interatomic potential: energies, forces and stresses of batches of atoms.

    potential     Potential: the model; blocks: its rounds of message passing
    atoms         what it reads of a batch, checked
    derivatives   forces, virial, volume, Hessian
    arguments     its arguments, checked
    file          potential.pt
    species       with_species: the same potential, for more elements
    neighbors     RadiusGraph, radius_graph: which atoms see each other
    calculator    ASECalculator, VerletList: the potential in ASE
    committee     CommitteeCalculator: several potentials and their spread
    replay        Replay: energy and forces as one CUDA graph

Import from here, not from the modules. The calculators and VerletList need ASE, and are loaded when they are first
asked for.
"""

from typing import TYPE_CHECKING

from .._lazy import attach
from ._derivatives import cell_volumes
from ._neighbors import RadiusGraph, radius_graph
from ._potential import Potential
from ._replay import Replay
from ._species import with_species

if TYPE_CHECKING:
    from ._calculator import ASECalculator as ASECalculator
    from ._calculator import VerletList as VerletList
    from ._committee import CommitteeCalculator as CommitteeCalculator

# A star import must not need ASE: no ASECalculator.
__all__ = ["Potential", "RadiusGraph", "Replay", "cell_volumes", "radius_graph", "with_species"]

if not TYPE_CHECKING:  # to a type checker, a module with __getattr__ has every name
    __getattr__, __dir__ = attach(
        __name__,
        {"ASECalculator": "._calculator", "CommitteeCalculator": "._committee", "VerletList": "._calculator"},
    )
