"""A molecular dynamics before its first step, or before the next one of a run that goes on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixCom
from ase.md.md import MolecularDynamics

from pyg_cgconv import ASECalculator
from pyg_cgconv.potential import Potential, VerletList
from train.dynamics import Dynamics, draw_momenta, langevin, npt, verlet
from train.md_options import DynamicsOptions
from train.md_state import restore_atoms, restore_lists, restore_random
from train.replicas import FixEachCom, Replica, ReplicaCalculator, ReplicaRandom, together
from train.trained import ComputeOptions


@dataclass(frozen=True)
class Moving:
    """What moves.

    Args:
        dynamics: of all atoms.
        watched: each run, as a log reads it: the dynamics itself, or its replicas.
        potential: which gives the forces.
        lists: the neighbour lists.
        generators: of random numbers, one for each run.
    """

    dynamics: MolecularDynamics
    watched: Sequence[Dynamics]
    potential: Potential
    lists: Sequence[VerletList]
    generators: Sequence[np.random.Generator]


def set_up(
    atoms: Atoms,
    potential: Potential,
    options: DynamicsOptions,
    compute: ComputeOptions,
    state: dict[str, np.ndarray] | None,
) -> Moving:
    """Gives the atoms their momenta and makes what moves them.

    Args:
        atoms: the structure to start from.
        state: of the run to go on with.

    Raises:
        ValueError: the potential does not know an element, or the ensemble does not serve the structure.
    """
    generators = [np.random.default_rng(options.seed + number) for number in range(options.replicas)]
    each = [atoms.copy() for _ in generators]
    for replica, generator in zip(each, generators, strict=True):
        if options.velocities == "maxwell":
            draw_momenta(replica, options.temperature, generator)
    calculator = ASECalculator(potential, device=compute.torch_device, skin=options.skin)
    calculator.get_potential_energy(atoms)  # finds elements that the potential does not know
    if options.replicas == 1:
        moving, lists = each[0], [calculator.neighbors]
        random: np.random.Generator | ReplicaRandom = generators[0]
        moving.calc = calculator
    else:
        moving = together(each)
        moving.calc = ReplicaCalculator(calculator.potential, options.skin, options.replicas)
        lists, random = moving.calc.lists, ReplicaRandom(generators)
        if options.ensemble == "nvt" and not moving.constraints:
            moving.set_constraint(FixEachCom(options.replicas))
            atoms = atoms.copy()
            atoms.set_constraint(FixCom())
    for neighbors in lists:
        neighbors.builds = 0
    if state is not None:
        restore_atoms(moving, state)
        restore_lists(lists, each, state)
    dynamics = integrator(moving, options, random)
    if state is not None:
        dynamics.nsteps = int(state["step"])
        restore_random(generators, state)
        if "cell_momentum" in state:
            dynamics.cell_state = state  # type: ignore[attr-defined]  # of a barostat
    watched: list[Dynamics] = [dynamics]
    if options.replicas > 1:
        watched = [Replica(dynamics, number, atoms) for number in range(options.replicas)]
    return Moving(dynamics, watched, calculator.potential, lists, generators)


def integrator(atoms: Atoms, options: DynamicsOptions, random: Any) -> MolecularDynamics:
    if options.ensemble == "nve":
        return verlet(atoms, options.timestep)
    if options.ensemble == "npt":
        return npt(atoms, options, random)
    return langevin(atoms, options.timestep, options.temperature, options.friction, random)
