"""Potentials in LAMMPS, by the Python interface of its package ML-IAP (`pair_style mliap unified`)."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._functions import without_autocast
from ..ops import Neighbors
from ._arguments import SYMBOLS
from ._atoms import Atoms
from ._ghosts import Ghosts, wait_for_device
from ._given import for_inference
from ._outputs import energies_of_atoms
from ._potential import Potential

LAMMPS_SUFFIXES = (".pt", ".pth")
"""LAMMPS reads files of other names by pickle instead of torch.load."""


class LAMMPSPotential:
    r"""A :class:`~pyg_cgconv.Potential` as `LAMMPS <https://www.lammps.org>`_ calls one.

    Write it to a file, which LAMMPS reads::

        from pyg_cgconv.potential import LAMMPSPotential

        LAMMPSPotential("runs/demo").save("ethanol-lammps.pt")

    and in the input of LAMMPS, with the elements of its atom types in order::

        units       metal
        pair_style  mliap unified ethanol-lammps.pt 0
        pair_coeff  * * H C O

    Each process computes the energies of its own atoms. Between two blocks of the network, processes exchange the
    features of ghost atoms, so that the communication cutoff is that of one block, however many there are. LAMMPS does
    this in its Kokkos version only (``lmp -k on g 1 -sf kk -pk kokkos newton on neigh half``, or ``-k on t 1`` without
    a GPU); a potential of one block runs in every version that has ML-IAP with Python.

    Results are LAMMPS' own: energies of atoms, the energy, and forces of pairs, from which LAMMPS makes forces and
    virials. Units are those of the training data, eV and Angstrom: ``units metal``.

    Args:
        potential: The potential, of which a copy is made; or the path of a file that :meth:`Potential.save` wrote; or
            that of a run folder.
        dtype: float32 or float64 (or their names); the potential's if None. Energies of atoms are summed in float64.
        head: The name of the head of a potential that has several; its first if None, with a warning.

    Attributes:
        potential: The copy. It moves to where LAMMPS has its atoms.
        element_types: Chemical symbols in the order of the potential's species.
        rcutfac: Half the cutoff, Angstrom: what LAMMPS calls the radius of an atom.
        ndescriptors: 1, as is ``nparams``. LAMMPS asks for them, and they have no meaning here.
        interface: LAMMPS' own.

    Raises:
        TypeError: ``potential`` is neither a potential nor a path.
        ValueError: a file holds no potential, or its readout is no energy.
    """

    ndescriptors = nparams = 1
    interface: Any = None

    def __init__(
        self,
        potential: Potential | str | os.PathLike,
        *,
        dtype: torch.dtype | str | None = None,
        head: str | None = None,
    ):
        self.potential = for_inference(potential, dtype=dtype, head=head)
        self.element_types = [SYMBOLS[number] for number in self.potential.hyperparameters["species"]]
        self.rcutfac = self.potential.cutoff / 2

    def save(self, path: str | os.PathLike) -> None:
        """Writes the file that LAMMPS reads, ending in ``.pt`` or ``.pth``.

        LAMMPS reads a pickle, whoever wrote it: a file that runs code when it is read. This one names
        :class:`LAMMPSPotential` and holds the content of a file of :meth:`Potential.save` as data. Read no file that
        you do not trust, and give others the potential's own file rather than this one.

        Raises:
            ValueError: the file's name has another ending.
        """
        if Path(path).suffix not in LAMMPS_SUFFIXES:
            raise ValueError(
                f"path: LAMMPS reads files that end in {' or '.join(LAMMPS_SUFFIXES)}, got {os.fspath(path)!r}"
            )
        torch.save(self, path)

    def __reduce__(self) -> tuple:
        content = io.BytesIO()
        self.potential.save(content)
        return _from_content, (content.getvalue(), self.potential.edges_at_a_time)

    @without_autocast
    def compute_forces(self, data: Any) -> None:
        """What LAMMPS calls in each step.

        Args:
            data: Its atoms and pairs, an ``MLIAPDataPy``: n own atoms, m with ghosts, E pairs. ``elems`` (m,) rows of
                ``element_types``, ``pair_i`` (E,) own atoms, ``pair_j`` (E,) any, ``rij`` (E, 3) from i to j. Gets
                ``energy``, ``eatoms`` (n,), and the derivatives by ``rij``, of which it makes forces and virial.

        Raises:
            ValueError: atoms have types without an element, or this LAMMPS cannot exchange the features of ghosts.
        """
        self._check(data)
        with torch.inference_mode(False), torch.enable_grad():
            atoms = self._atoms(data)
            ghosts = Ghosts(data.nlocal, data.ntotal, data, atoms.vectors.requires_grad_())
            # A process without atoms computes, too: the others wait for its part in each exchange.
            energies = energies_of_atoms(self.potential, atoms, ghosts)
            (slope,) = torch.autograd.grad(energies.sum(), atoms.vectors)
        _give(data, energies.detach(), slope.double().contiguous())

    def compute_descriptors(self, data: Any) -> None:
        """Nothing: LAMMPS asks for it before :meth:`compute_forces`."""

    def compute_gradients(self, data: Any) -> None:
        """Nothing: LAMMPS asks for it before :meth:`compute_forces`."""

    def _check(self, data: Any) -> None:
        if len(self.potential.blocks) > 1 and not hasattr(data, "forward_exchange"):
            raise ValueError(
                f"pair_style mliap unified: a potential of {len(self.potential.blocks)} layers exchanges features of "
                "ghost atoms between its layers, which this LAMMPS cannot do; run it with Kokkos (lmp -k on g 1 -sf kk "
                "-pk kokkos newton on neigh half) in a version of 2025 or later, or train a potential of one layer"
            )

    def _atoms(self, data: Any) -> Atoms:
        elements = _tensor(data.elems, (data.ntotal,), torch.int64)
        if not data.ntotal:  # then LAMMPS has no array that would say where it computes
            elements = elements.to(self.potential.shift.device)
        device = elements.device
        wait_for_device(elements)  # LAMMPS may still be writing
        if (elements < 0).any():
            raise ValueError(
                "pair_coeff: atoms have types without an element (NULL), which a potential of all atoms cannot take; "
                f"give each type one of {' '.join(self.element_types)}"
            )
        if self.potential.shift.device != device:
            self.potential = self.potential.to(device)
        target, source = (
            _tensor(pairs, (data.npairs,), torch.int64).to(device) for pairs in (data.pair_i, data.pair_j)
        )
        vectors = _tensor(data.rij, (data.npairs, 3), self.potential.dtype).to(device)
        structure = torch.zeros_like(elements)
        edges: Any = Neighbors((source, target), data.ntotal, data.nlocal)  # sorted once for all layers
        return Atoms(elements, edges, source, target, vectors, structure, 1, None)


def write_lammps(
    potential: Potential | str | os.PathLike,
    path: str | os.PathLike,
    *,
    dtype: torch.dtype | str | None = None,
    head: str | None = None,
) -> None:
    """Writes a potential, or that of a file or a run folder, to a file for LAMMPS: :meth:`LAMMPSPotential.save`."""
    LAMMPSPotential(potential, dtype=dtype, head=head).save(path)


def _from_content(content: bytes, edges_at_a_time: int | None = None) -> LAMMPSPotential:
    """What a file names; older ones hold the content alone."""
    read = LAMMPSPotential(Potential.load(io.BytesIO(content)))
    read.potential.edges_at_a_time = edges_at_a_time
    return read


def _tensor(given: Any, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A copy of an array of NumPy or CuPy; LAMMPS has None for one without rows."""
    return torch.empty(shape, dtype=dtype) if given is None else torch.as_tensor(given).to(dtype, copy=True)


def _give(data: Any, energies: Tensor, slope: Tensor) -> None:
    """Energies of own atoms (n,) and derivatives by pairs (E, 3), both float64, to LAMMPS."""
    with_kokkos = hasattr(data, "forward_exchange")
    data.energy = energies.sum().item()
    if len(energies):
        if with_kokkos:
            torch.as_tensor(data.eatoms).copy_(energies)
        else:
            data.eatoms = energies.numpy()
    if len(slope):  # LAMMPS takes the address of the first
        wait_for_device(slope)
        if with_kokkos:
            data.update_pair_forces_gpu(slope)
        else:
            data.update_pair_forces(slope.numpy())
    wait_for_device(slope)
