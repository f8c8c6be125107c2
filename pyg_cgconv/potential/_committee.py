"""Several potentials as one ASE calculator: their mean, and how far they are apart."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data

from ._calculator import ASECalculator, Atoms, Calculator, check_species  # the error without ASE is there
from ._given import head_or_first, loaded
from ._potential import Potential
from ._verlet import VerletList

AVERAGED = ("energy", "free_energy", "energies", "forces", "stress", "stresses", "charges", "dipole")


class CommitteeCalculator(ASECalculator):
    r"""Potentials that were trained on the same reference as one calculator of ASE: their mean, and their spread, which
    tells where they know little.

    Properties are those of :class:`~pyg_cgconv.ASECalculator`, each the mean over the M members. With them come, in
    ``results`` and by ``get_property``,

    - ``energy_comm`` (M,), ``forces_comm`` (M, n, 3), ``stress_comm`` (M, 6): what each member says,
    - ``energy_std`` eV, ``energies_std`` (n,) eV, ``stress_std`` (6,) and ``stresses_std`` (n, 6) eV/Angstrom^3: their
      standard deviation,
    - ``forces_std`` (n,) eV/Angstrom, the root mean square distance of the members' forces on an atom from their mean,

      .. math:: s_i = \sqrt{\frac{1}{M} \sum_m \left| \mathbf{F}_i^{(m)} - \overline{\mathbf{F}}_i \right|^2}

    - ``energy_var`` eV^2,
    - ``charges`` (n,) e, ``dipole`` (3,) e Angstrom, ``charges_std``, ``dipole_std``, if all members have them.

    Deviations are divided by M, not by M - 1. ``energy_var``, ``forces_comm`` are the names of MACE's calculator, whose
    ``energies`` are our ``energy_comm``: here ``energies`` are of atoms, as in ASE.

    All members read one neighbour list, that of the largest cutoff.

    Args:
        potentials: Two or more, each as :class:`~pyg_cgconv.ASECalculator` takes it: potentials, files, run folders.
        device, dtype, skin, capture, head: As there, for each member.

    Attributes:
        members: The calculators of the single potentials.
        neighbors: The :class:`~pyg_cgconv.potential.VerletList` of all.

    Raises:
        TypeError: ``potentials`` is no list, or holds something else than potentials and paths.
        ValueError: there are fewer than two; as :class:`~pyg_cgconv.ASECalculator`, also where atoms are of an element
            that one of them does not know.

    Example::

        from pyg_cgconv import CommitteeCalculator

        atoms.calc = CommitteeCalculator(["runs/a/member-0", "runs/a/member-1", "runs/a/member-2"])
        forces = atoms.get_forces()
        print(atoms.calc.results["forces_std"].max(), "eV/Angstrom")
    """

    implemented_properties: list[str] = [  # noqa: RUF012
        *AVERAGED,
        *(f"{name}_std" for name in AVERAGED if name != "free_energy"),
        *("energy_var", "energy_comm", "forces_comm", "stress_comm"),
    ]

    def __init__(
        self,
        potentials: Sequence[Potential | str | os.PathLike],
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
        skin: float = 0.5,
        capture: bool = True,
        head: str | None = None,
    ):
        Calculator.__init__(self)
        if isinstance(potentials, (str, bytes, os.PathLike, Potential)) or not isinstance(potentials, Sequence):
            raise TypeError(f"potentials: expected a list of potentials or of paths, got {_shown(potentials)}")
        if len(potentials) < 2:
            raise ValueError(f"potentials: expected two or more, got {len(potentials)}; ASECalculator takes one")
        given = [loaded(potential) for potential in potentials]
        head = head_or_first(head, given[0].hyperparameters["heads"])  # of all members, whatever their order of heads
        options: dict[str, Any] = dict(device=device, dtype=dtype, skin=skin, capture=capture, head=head)
        self.members = [ASECalculator(potential, **options) for potential in given]
        known = set.intersection(*(set(member.implemented_properties) for member in self.members))
        self.implemented_properties = [
            name for name in CommitteeCalculator.implemented_properties if {name, name.partition("_")[0]} & known
        ]
        devices = {member.neighbors.device for member in self.members}
        if len(devices) > 1:
            raise ValueError(f"potentials: on different devices {sorted(map(str, devices))}; choose one with device=")
        self.neighbors = VerletList(max(member.potential.cutoff for member in self.members), skin, devices.pop())

    def _check_species(self, atoms: Atoms) -> None:
        for member in self.members:
            check_species(atoms, member.potential)

    def _computed(self, data: Data, properties: Sequence[str], volume: bool) -> dict[str, Any]:
        wanted = {name.partition("_")[0] if name not in AVERAGED else name for name in properties}
        return with_spread([member._computed(data, list(wanted), volume) for member in self.members])

    def _hessian(self, data: Data, chunk_size: int | None) -> np.ndarray:
        return np.mean([member._hessian(data, chunk_size) for member in self.members], axis=0)


def with_spread(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over the members of what each of them gives, by name, and their spread."""
    found: dict[str, Any] = {}
    for name in results[0]:
        values = np.stack([result[name] for result in results])
        mean = values.mean(axis=0)
        found[name] = mean if mean.shape else float(mean)
        if name == "free_energy":
            continue
        variance = np.square(values - mean).mean(axis=0)
        if name == "forces":
            variance = variance.sum(axis=-1)
        found[f"{name}_std"] = np.sqrt(variance) if variance.shape else float(np.sqrt(variance))
        if name in ("energy", "forces", "stress"):
            found[f"{name}_comm"] = values
    if "energy" in found:
        found["energy_var"] = found["energy_std"] ** 2
    return found


def _shown(given: Any) -> str:
    return "one Potential" if isinstance(given, Potential) else repr(given)
