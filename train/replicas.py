"""Several runs from one structure, moved together: one batch for the potential, one array for ASE's integrator."""

from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixConstraint
from ase.md.md import MolecularDynamics
from ase.stress import full_3x3_to_voigt_6_stress
from torch import Tensor
from torch_geometric.data import Data

from pyg_cgconv.potential import Potential, VerletList


class ReplicaCalculator(Calculator):
    """Energies and forces of replicas, whose atoms follow one another, by one call of the potential.

    Args:
        potential: made for inference on its device.
        skin: as in :class:`pyg_cgconv.ASECalculator`; each replica has a list of its own.
        count: of replicas, R.

    Attributes:
        energies: (R,) eV, of the last calculation.
        stresses: (R, 6) eV/Angstrom^3, those of ASE; None without a volume.
    """

    implemented_properties: list[str] = ["energy", "free_energy", "forces"]  # noqa: RUF012

    def __init__(self, potential: Potential, skin: float, count: int):
        super().__init__()
        self.potential = potential.eval().requires_grad_(False)
        self.potential.validate = False
        self.lists = [VerletList(potential.cutoff, skin, potential.shift.device) for _ in range(count)]
        self.energies, self.stresses = np.zeros(count), None
        self._replicas: list[Atoms] = []
        self._graph: Data | None = None
        self._joined: list[Tensor] = []  # the lists that the graph was made of

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        if self.atoms is None:
            raise ValueError("atoms: missing, and none are known from an earlier calculation")
        graph = self._batch(self.atoms)
        crystal = self.atoms.cell.rank == 3
        with torch.no_grad():
            out = self.potential(graph, compute_stress=crystal)
        self.energies = out["energy"].cpu().numpy()
        if crystal:
            self.stresses = full_3x3_to_voigt_6_stress(out["stress"].double().cpu().numpy())
        energy = float(self.energies.sum())
        self.results = {"energy": energy, "free_energy": energy, "forces": out["forces"].double().cpu().numpy()}

    def _batch(self, atoms: Atoms) -> Data:
        """All replicas as one graph; its edges are joined again only where a list is new."""
        count = len(self.lists)
        positions = atoms.positions.reshape(count, -1, 3)
        if not self._replicas:
            n = positions.shape[1]
            self._replicas = [Atoms(atoms.numbers[:n], cell=atoms.cell, pbc=atoms.pbc) for _ in range(count)]
        graphs = []
        for neighbors, replica, place in zip(self.lists, self._replicas, positions, strict=True):
            replica.positions[:] = place
            graphs.append(neighbors(replica))
        edges = [graph.edge_index for graph in graphs]
        if self._graph is None or any(one is not other for one, other in zip(edges, self._joined, strict=True)):
            self._graph, self._joined = joined(graphs), edges
        self._graph.pos = torch.cat([graph.pos for graph in graphs])
        return self._graph


def joined(graphs: Sequence[Data]) -> Data:
    """A batch of graphs with as many atoms each: without the bookkeeping that PyG's own has for each step."""
    count, n, device = len(graphs), graphs[0].num_nodes, graphs[0].pos.device
    batch = Data(
        z=torch.cat([graph.z for graph in graphs]),
        edge_index=torch.cat([graph.edge_index + n * number for number, graph in enumerate(graphs)], dim=1),
        batch=torch.arange(count, device=device).repeat_interleave(n),
        ptr=n * torch.arange(count + 1, device=device),
    )
    if "cell" in graphs[0]:
        batch.cell = torch.cat([graph.cell for graph in graphs])
        batch.edge_shift = torch.cat([graph.edge_shift for graph in graphs])
    return batch


class ReplicaRandom:
    """Normal numbers for all replicas, those of each from a generator of its own: as it has when it runs alone."""

    def __init__(self, generators: Sequence[np.random.Generator]):
        self.generators = list(generators)

    def standard_normal(self, size: tuple[int, ...]) -> np.ndarray:
        each = (size[0] // len(self.generators), *size[1:])
        return np.concatenate([generator.standard_normal(size=each) for generator in self.generators])


class FixEachCom(FixConstraint):
    """Keeps the centre of mass of each replica where it is; the equations are those of :class:`ase.constraints.FixCom`.

    ASE's FixSubsetCom moves all atoms to keep some of them in place.
    """

    def __init__(self, count: int):
        self.count = count

    def get_removed_dof(self, atoms: Atoms) -> int:
        return 3 * self.count

    def adjust_positions(self, atoms: Atoms, new: np.ndarray) -> None:
        masses = self._masses(atoms)
        moved = self._each(atoms.positions) - self._each(new)
        self._each(new)[:] += (masses * moved).sum(axis=1, keepdims=True) / masses.sum(axis=1, keepdims=True)

    def adjust_momenta(self, atoms: Atoms, momenta: np.ndarray) -> None:
        masses, each = self._masses(atoms), self._each(momenta)
        each -= masses * each.sum(axis=1, keepdims=True) / masses.sum(axis=1, keepdims=True)

    def adjust_forces(self, atoms: Atoms, forces: np.ndarray) -> None:
        masses, each = self._masses(atoms), self._each(forces)
        each -= masses * (masses * each).sum(axis=1, keepdims=True) / np.square(masses).sum(axis=1, keepdims=True)

    def todict(self) -> dict:
        return {"name": "FixEachCom", "kwargs": {"count": self.count}}

    def _each(self, values: np.ndarray) -> np.ndarray:
        return values.reshape(self.count, -1, values.shape[-1])

    def _masses(self, atoms: Atoms) -> np.ndarray:
        return self._each(atoms.get_masses()[:, None])


class Replica:
    """One of several that move together, as a log and a trajectory see a dynamics.

    Args:
        dynamics: of all.
        number: which one, from 0.
        atoms: the structure of one, with the constraints of a single run.
    """

    def __init__(self, dynamics: MolecularDynamics, number: int, atoms: Atoms):
        self._dynamics, self._number, self._atoms = dynamics, number, atoms.copy()

    @property
    def nsteps(self) -> int:
        return self._dynamics.nsteps

    def get_time(self) -> float:
        return self._dynamics.get_time()

    @property
    def atoms(self) -> Atoms:
        """As they are at this moment."""
        everything, n = self._dynamics.atoms, len(self._atoms)
        own = slice(self._number * n, (self._number + 1) * n)
        forces = everything.get_forces(apply_constraint=False)[own]
        found = self._atoms.copy()
        found.arrays["positions"][:] = everything.positions[own]
        found.set_array("momenta", everything.get_momenta()[own].copy())
        results = {"energy": everything.calc.energies[self._number], "forces": forces}
        if everything.calc.stresses is not None:
            results["stress"] = everything.calc.stresses[self._number]
        found.calc = SinglePointCalculator(found, **results)
        return found


def together(replicas: Sequence[Atoms]) -> Atoms:
    """All atoms as one structure; atoms that are fixed in each stay fixed.

    Raises:
        ValueError: there are other constraints.
    """
    first, n = replicas[0], len(replicas[0])
    atoms = Atoms(
        np.concatenate([one.numbers for one in replicas]),
        positions=np.concatenate([one.positions for one in replicas]),
        masses=np.concatenate([one.get_masses() for one in replicas]),
        momenta=np.concatenate([one.get_momenta() for one in replicas]),
        cell=first.cell,
        pbc=first.pbc,
    )
    if not all(isinstance(constraint, FixAtoms) for constraint in first.constraints):
        raise ValueError(f"replicas={len(replicas)}: of constraints only fixed atoms can be, got {first.constraints}")
    fixed = [constraint.get_indices() for constraint in first.constraints]
    if fixed:
        atoms.set_constraint(FixAtoms(np.concatenate([np.concatenate(fixed) + n * i for i in range(len(replicas))])))
    return atoms
