"""Potentials as ASE calculators, for molecular dynamics, relaxations and whatever else ASE does with forces."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data

from ._derivatives import hessian
from ._given import for_inference
from ._potential import Potential
from ._replay import Replay

try:
    from ase import Atoms
    from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
    from ase.data import chemical_symbols
    from ase.stress import full_3x3_to_voigt_6_stress

    from ._verlet import VerletList, charge_of, has_volume
except ModuleNotFoundError as error:
    raise ImportError("ASECalculator needs ASE: pip install ase, or pip install 'pyg-cgconv[train]'") from error

HESSIAN_PAIRS = 20_000
"""Pairs of all rows of a Hessian that are computed together: 16 rows of 2,500 pairs are as fast as can be on a CPU, 48
take twice as long (32 copper atoms, 16 channels)."""


class ASECalculator(Calculator):
    r"""A :class:`~pyg_cgconv.Potential` as a calculator of ASE, the `Atomic Simulation Environment
    <https://wiki.fysik.dtu.dk/ase>`_.

    It computes what ASE asks for, of molecules, crystals and whatever is periodic in one or two directions:

    - ``energy`` and ``free_energy``: the same number, eV,
    - ``energies``: (n,), those of the atoms, which sum to ``energy``, eV; only when they are asked for,
    - ``forces``: (n, 3), eV/Angstrom,
    - ``stress``: (6,) in Voigt order xx, yy, zz, yz, xz, xy, eV/Angstrom^3, where the cell has a volume. The sign is
      ASE's, :math:`\frac{1}{V} \frac{\partial E}{\partial \boldsymbol{\epsilon}}`: positive where the structure wants
      to shrink. V is the volume of the cell with whatever vacuum is in it: the stress of a slab times the height of its
      cell is the force on a unit of length of its surface,
    - ``stresses``: (n, 6), parts of the stress, which sum to it: half of the virial of each pair is given to either
      atom, as LAMMPS and MACE do. Only the sum is defined by physics; only when they are asked for,
    - ``charges`` (n,), e, and ``dipole`` (3,), e Angstrom, of a potential that has them. The total charge is
      ``atoms.info["charge"]``, 0 if it is not there. A periodic structure has no dipole.

    :meth:`get_hessian` has the second derivatives.

    The units are those of the potential's training data, which ASE takes to be these. Energies alone are computed
    without derivatives; otherwise energy, forces and stress are computed in one go.

    Neighbours are looked for within cutoff + ``skin``, and again when they are needed: :class:`VerletList`. On a GPU,
    the derivatives of a small structure are a CUDA graph, captured once and then launched as a whole.

    Args:
        potential: The potential, of which the calculator makes a copy, so that a later change does not reach it; or the
            path of a file that :meth:`Potential.save` wrote; or that of a run folder, which has it as ``potential.pt``.
        device: Where to compute; where the potential is, if None (the CPU for a file).
        dtype: float32 or float64 (or their names); the potential's if None. Positions are subtracted and energies of
            atoms summed in float64 in any case.
        skin: By how much neighbours are looked for beyond the cutoff, Angstrom. A larger one lets a list last for more
            steps and makes each step compute more pairs; with 0 each step has a new list.
        capture: Whether CUDA graphs are used where they help, on a GPU with up to 100,000 pairs.
        head: The name of the head of a potential that has several; its first if None, with a warning.

    Attributes:
        potential: The calculator's own potential, that of the head.
        neighbors: The :class:`VerletList`; ``neighbors.builds`` says how many lists were made so far.

    Raises:
        ImportError: ASE is not installed.
        TypeError: ``potential`` is neither a potential nor a path.
        ValueError: an argument makes no sense, or a file holds no potential; later, where atoms are of an element that
            the potential does not know, which is named.
        PropertyNotImplementedError: what is asked for the structure or the potential does not have, such as a stress
            without a volume.

    Example::

        from ase import units
        from ase.build import molecule
        from ase.md.verlet import VelocityVerlet
        from ase.optimize import BFGS
        from pyg_cgconv import ASECalculator

        atoms = molecule("CH3CH2OH")
        atoms.calc = ASECalculator("runs/demo")  # make demo trains it
        BFGS(atoms).run(fmax=0.01)
        atoms.rattle(stdev=0.05)
        VelocityVerlet(atoms, timestep=0.5 * units.fs, logfile="-").run(100)
    """

    # Of the class, but ASE declares them as an instance's.
    implemented_properties: list[str] = [  # noqa: RUF012
        "energy",
        "free_energy",
        "energies",
        "forces",
        "stress",
        "stresses",
    ]
    ignored_changes: set[str] = {"initial_charges", "initial_magmoms"}  # noqa: RUF012

    def __init__(
        self,
        potential: Potential | str | os.PathLike,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
        skin: float = 0.5,
        capture: bool = True,
        head: str | None = None,
    ):
        super().__init__()
        self.potential = for_inference(potential, device, dtype, head, energy=False)
        has = self.potential.hyperparameters["properties"]
        of_energy = ASECalculator.implemented_properties if "energy" in has else []
        self.implemented_properties = [*of_energy, *(name for name in has if name != "energy")]
        self.potential.validate = False  # species are checked here, and the neighbours are the right ones
        device = self.potential.shift.device
        self.neighbors = VerletList(self.potential.cutoff, skin, device)
        self._replay = Replay(self.potential) if capture and device.type == "cuda" else None

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: list[str] = all_changes,
    ) -> None:
        """Fills ``results``, as ASE wants it. ``properties`` are the names of what is needed."""
        super().calculate(atoms, properties, system_changes)
        if system_changes:
            self.results = {}  # nothing of other atoms is left, should this fail
        if self.atoms is None:
            raise ValueError("atoms: missing, and none are known from an earlier calculation")
        wanted = [name for name in properties if name.startswith("stress")]
        if wanted and not has_volume(self.atoms):
            raise PropertyNotImplementedError(
                f"{wanted[0]}: defined where the cell has a volume, got cell={self.atoms.cell.tolist()} with "
                f"pbc={self.atoms.pbc.tolist()}"
            )
        if "dipole" in properties and self.atoms.pbc.any():
            raise PropertyNotImplementedError(
                f"dipole: a periodic structure has none, got pbc={self.atoms.pbc.tolist()}"
            )
        self._check_species(self.atoms)
        self.results |= self._computed(self.neighbors(self.atoms), properties, has_volume(self.atoms))

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What changed since the last calculation: as ASE has it, or the charge."""
        changed = super().check_state(atoms, tol)
        return changed or ([] if self.atoms is None or charge_of(atoms) == charge_of(self.atoms) else ["charge"])

    def _check_species(self, atoms: Atoms) -> None:
        check_species(atoms, self.potential)

    def _computed(self, data: Data, properties: Sequence[str], volume: bool) -> dict[str, Any]:
        """What is needed of a graph, and what comes with it, as ASE wants it."""
        out = self._outputs(data, properties, volume)
        results: dict[str, Any] = {}
        if "energy" in out:
            results["energy"] = results["free_energy"] = out["energy"].item()
        for name in ("energies", "forces"):
            if name in out:
                results[name] = out[name].double().cpu().numpy()
        if "charges" in properties:
            results["charges"] = out["charges"].cpu().numpy()
        if "dipole" in properties:
            results["dipole"] = out["dipole"][0].cpu().numpy()
        for name, rows in (("stress", 0), ("stresses", slice(None))):
            if name in out:
                results[name] = full_3x3_to_voigt_6_stress(out[name][rows].double().cpu().numpy())
        return results

    def _outputs(self, data: Data, properties: Sequence[str], volume: bool) -> dict[str, torch.Tensor]:
        """As the potential gives them; forces and stress together."""
        derivatives = bool({"forces", "stress", "stresses"} & set(properties))
        of_atoms = {f"compute_{name}": name in properties for name in ("energies", "stresses")}
        stress = derivatives and volume
        more = any(of_atoms.values()) or bool({"charges", "dipole"} & set(properties))  # than a graph has
        with torch.no_grad():
            if self._replay and derivatives and not more and self._replay.serves(data, stress):
                return self._replay(data, compute_stress=stress)
            return self.potential(data, compute_forces=derivatives, compute_stress=stress, **of_atoms)

    def get_hessian(self, atoms: Atoms | None = None, *, chunk_size: int | None = None) -> np.ndarray:
        r"""Second derivatives of the energy, by differentiating the forces.

        .. math:: H_{i \alpha, j \beta} = \frac{\partial^2 E}{\partial r_{i \alpha} \, \partial r_{j \beta}}

        Constraints are not heeded. A float32 potential gives it to five digits or so: take ``dtype="float64"`` for
        phonons and vibrations.

        Args:
            atoms: n atoms; those of the last calculation if None.
            chunk_size: Rows of the 3n that are computed at a time: fewer take less memory, more are faster on a GPU. By
                default as many as have 20,000 pairs between them, at least one.

        Returns:
            A symmetric array (n, 3, n, 3) in eV/Angstrom^2, as ``ase.vibrations.VibrationsData`` takes it.
            ``reshape(3 * n, 3 * n)`` makes it a matrix, ``reshape(3 * n, n, 3)`` what MACE's calculator gives.

        Raises:
            ValueError: there are no atoms, one is of an unknown element, or ``chunk_size`` is not positive.
        """
        atoms = self.atoms if atoms is None else atoms
        if atoms is None:
            raise ValueError("atoms: missing, and none are known from an earlier calculation")
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"chunk_size: expected a positive number of rows, got {chunk_size}")
        self._check_species(atoms)
        return self._hessian(self.neighbors(atoms), chunk_size)

    def _hessian(self, data: Data, chunk_size: int | None) -> np.ndarray:
        found = hessian(self.potential, data, chunk_size or max(1, HESSIAN_PAIRS // max(1, data.num_edges)))
        return found.double().cpu().numpy()


def check_species(atoms: Atoms, potential: Potential) -> None:
    known = potential.hyperparameters["species"]
    unknown = sorted(set(atoms.numbers.tolist()).difference(known))
    if unknown:
        raise ValueError(f"atoms: the potential was made for {_symbols(known)} and does not know {_symbols(unknown)}")


def _symbols(numbers: list[int]) -> str:
    return ", ".join(chemical_symbols[n] if 0 <= n < len(chemical_symbols) else f"Z={n}" for n in numbers)
