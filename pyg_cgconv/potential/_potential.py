"""An equivariant interatomic potential: energy, forces and stress of molecules and crystals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.data import Data

from .._functions import without_autocast
from .._torch import in_forward_mode, is_traced, is_transformed
from ..cuda_graphs import is_captured
from ..nn import BesselBasis, PolynomialCutoff
from . import _file
from ._arguments import MAX_ATOMIC_NUMBER, check_readout, plain_arguments, positive_or_none
from ._atoms import Atoms, check_values, read_atoms
from ._blocks import network
from ._derivatives import with_derivatives
from ._heads import heads_of, with_head
from ._moments import Moments
from ._outputs import learned_of, results_of
from ._prepared import Prepared
from ._rounds import functions_at_once
from ._zbl import ZBL


class Potential(nn.Module):
    r"""A message-passing potential in the manner of NequIP (Batzner et al., `E(3)-equivariant graph neural networks for
    data-efficient and accurate interatomic potentials <https://arxiv.org/abs/2101.03164>`_).

    .. math::
        E = \sum_i \big( \mu_{z_i} + \sigma_{z_i} \, \varepsilon_i \big), \qquad
        \mathbf{F}_i = -\frac{\partial E}{\partial \mathbf{r}_i}, \qquad
        \boldsymbol{\tau} = \frac{1}{V} \frac{\partial E}{\partial \boldsymbol{\epsilon}}

    with :math:`\varepsilon_i` from the scalars of ``layers`` interaction blocks. The energy does not change under
    rotation, inversion, translation and permutation of like atoms; it and the forces are continuously differentiable
    when an atom crosses the cutoff; an atom without neighbours has exactly the energy :math:`\mu_z`.

    Units are those of the training data; Angstrom and eV here. The atoms' energies are scaled, shifted and summed in
    float64, because a float32 total of -4000 eV is known to 0.2 meV only; forces and stress have the dtype of the
    model.

    Args:
        species: Atomic numbers or chemical symbols that the potential knows.
        cutoff: Radius of the neighbourhood, Angstrom.
        channels: Channels of each hidden irrep, one number or one for each l = 0 ... lmax.
        lmax: Highest degree of the spherical harmonics and of the hidden features.
        layers: Interaction blocks.
        parity: Whether hidden features have both parities of each l, or only that of the spherical harmonics (0e, 1o,
            2e ...). Features that blocks cannot reach, or that later ones cannot turn into the readout, are left out:
            with fewer than four layers an energy has no use for the others.
        hidden_irreps: Hidden features by name, such as "64x0e+32x1o+16x2e", instead of ``channels`` and ``parity``.
        products: Whether blocks multiply an atom's messages with each other, as MACE does: smaller errors from the same
            data for half as much time again.
        radial_species: Whether the radial networks know the species of the neighbour: smaller errors at about the same
            speed.
        num_radial: Bessel functions.
        radial_hidden: Hidden widths of the radial networks.
        cutoff_power: Exponent of the polynomial envelope.
        zbl: Whether atoms repel each other as nuclei do at short distances, of which training sets know nothing:
            the screened Coulomb repulsion of Ziegler, Biersack and Littmark, up to the sum of covalent radii, to which
            the network adds the rest.
        avg_num_neighbors: Mean number of neighbours of an atom in the training data; messages are divided by its root.
        readout_irreps: What :meth:`atomic_outputs` gives each atom. Anything but a single scalar, "0e", makes a model
            of other properties than the energy.
        properties: Some of "energy", "charges" and "dipole", which needs ``lmax`` of 1 or more.
        heads: Names of levels of theory, such as ("pbe", "r2scan"): they have the body in common, and a readout, shifts
            and scales each. None for one level without a name.
        shift: Energy of an isolated atom, eV: one number, one for each species in their order, or by species in a dict.
            With heads it is that of all of them, or it is a list with one of these for each, or a dict by head.
        scale: Unit of the learned energy of an atom, eV, given as ``shift`` is; the root mean square force in
            eV/Angstrom is a good choice.
        dtype: float32 or float64 (or their names); torch's default dtype if None.
        backend: As in :class:`~pyg_cgconv.TensorProductConv`.

    Attributes:
        hyperparameters: The arguments, as plain numbers, strings and lists: ``Potential(**hyperparameters)`` builds it
            again.
        metadata: A dict for whatever should be known of a potential, such as what it was trained on: strings, numbers,
            lists and dicts, which :meth:`save` writes and :meth:`load` reads.
        validate: Whether each call looks for unknown species and too short neighbour lists. On a GPU this waits for the
            device once a call; set it to False where that matters. It is skipped while a CUDA graph is captured, and in
            compiled programs.

    Raises:
        ValueError: an argument makes no sense; it is named.
    """

    atomic_numbers: Tensor
    shift: Tensor
    scale: Tensor
    species_of_number: Tensor

    def __init__(
        self,
        species: Sequence[int | str],
        cutoff: float = 5.0,
        *,
        channels: int | Sequence[int] = 64,
        lmax: int = 2,
        layers: int = 3,
        parity: bool = False,
        hidden_irreps: str | o3.Irreps | None = None,
        products: bool = False,
        radial_species: bool = False,
        num_radial: int = 8,
        radial_hidden: Sequence[int] = (64, 64),
        cutoff_power: int = 6,
        zbl: bool = False,
        avg_num_neighbors: float = 1.0,
        readout_irreps: str | o3.Irreps = "0e",
        properties: Sequence[str] = ("energy",),
        heads: Sequence[str] | None = None,
        shift: float | Sequence | Mapping = 0.0,
        scale: float | Sequence | Mapping = 1.0,
        dtype: torch.dtype | str | None = None,
        backend: str = "auto",
    ):
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        self.hyperparameters: dict[str, Any] = plain_arguments(given)
        self.metadata: dict = {}
        self.cutoff, self.validate = float(cutoff), True
        self._edges_at_a_time: int | None = None
        numbers = torch.tensor(self.hyperparameters["species"])
        self.register_buffer("atomic_numbers", numbers)
        for name in ("shift", "scale"):
            self.register_buffer(name, torch.tensor(self.hyperparameters[name], dtype=torch.float64))
        species_of_number = torch.full((MAX_ATOMIC_NUMBER + 2,), -1)  # the last row serves numbers beyond the table
        species_of_number[numbers] = torch.arange(len(numbers))
        self.register_buffer("species_of_number", species_of_number, persistent=False)
        self.irreps_sh = o3.Irreps.spherical_harmonics(lmax)
        self.basis, self.envelope = BesselBasis(cutoff, num_radial), PolynomialCutoff(cutoff, cutoff_power)
        self.moments = Moments(numbers, properties) if self.hyperparameters["properties"] != ["energy"] else None
        self.zbl = ZBL(self.hyperparameters["species"], cutoff) if zbl else None
        self.embedding, self.blocks, self.readout = network(self.hyperparameters, self.irreps_sh)
        self.to(getattr(torch, self.hyperparameters["dtype"]))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters, in which everything but the sum of energies is computed."""
        return next(self.parameters()).dtype

    @property
    def edges_at_a_time(self) -> int | None:
        """How many edges are computed together: a large system takes the memory of so many, and 1.6 times the time.

        With None, the default, a GPU in evaluation mode takes as many as fit, which is all of them up to half of its
        memory; a CPU takes all. Results differ by rounding. Compiled programs, CUDA graphs, forward mode and transforms
        of :mod:`torch.func` take all in any case. Gradients of forces (a training step) are right, but save no memory.

        Raises:
            ValueError: it is set to something else than None or a positive whole number.
        """
        return self._edges_at_a_time

    @edges_at_a_time.setter
    def edges_at_a_time(self, number: int | None) -> None:
        self._edges_at_a_time = positive_or_none("edges_at_a_time", number)

    @without_autocast
    def forward(
        self,
        data: Data | Prepared,
        *,
        head: str | None = None,
        compute_forces: bool | None = None,
        compute_stress: bool = False,
        compute_energies: bool = False,
        compute_stresses: bool = False,
        create_graph: bool | None = None,
    ) -> dict[str, Tensor]:
        r"""Energies of a batch of structures and their derivatives, or what else its ``properties`` are.

        Args:
            data: A :class:`~torch_geometric.data.Data` or Batch with ``z`` (n,) integers, ``pos`` (n, 3) in the model's
                dtype or float64, ``edge_index`` (2, E) in any order, and for crystals ``edge_shift`` (E, 3) and
                ``cell`` (B, 3, 3): what :class:`~pyg_cgconv.RadiusGraph` makes. Edges longer than the cutoff count
                nothing. Of a potential with heads, ``head`` (B,) integers say which each structure takes: 0 for the
                first, as without them. For charges and dipoles, ``charge`` (B,) is the total charge of each structure,
                e, 0 if it is not there, and ``pbc`` (B, 3) says which of those with a cell are periodic. Or what
                :func:`prepared` made of it.
            head: The name of the head that all structures take, instead of those in ``data``.
            compute_forces: Whether to compute forces, also under :func:`torch.no_grad` and in inference mode; by
                default where there is an energy.
            compute_stress: Whether to compute the stress; needs a cell with a volume.
            compute_energies: Whether to give the energies of the atoms, too.
            compute_stresses: Whether to give the stresses of the atoms, which need the same volume.
            create_graph: Whether forces and stress can be differentiated again, for a loss on them or for a Hessian
                (``data.pos`` must then ask for gradients); by default while training. Under a transform of
                :mod:`torch.func` and in forward mode they always can.

        Returns:
            ``energy`` (B,) float64; ``forces`` (n, 3); ``stress`` (B, 3, 3), symmetric, with ASE's sign: positive where
            the structure wants to shrink, V times it being minus the virial; ``energies`` (n,) float64, which sum to
            ``energy``; ``stresses`` (n, 3, 3), which sum to ``stress``. ``charges`` (n,) float64, e, which sum to
            ``charge``; ``dipole`` (B, 3) float64, e Angstrom, about the centre of mass, NaN of periodic structures.
            Without ``create_graph``, what comes with forces or stress is detached.

        Raises:
            ValueError: an attribute of ``data`` is missing or wrong; it is named.
        """
        of_forces = "energy" in self.hyperparameters["properties"] if compute_forces is None else compute_forces
        wanted = (of_forces, compute_stress, compute_stresses)
        check_readout(self.hyperparameters, energy=any(wanted) or compute_energies)
        if is_transformed() or in_forward_mode():
            create_graph = True  # others differentiate what this returns
        elif create_graph is None:
            create_graph = self.training and torch.is_grad_enabled()
        batch = data.data if isinstance(data, Prepared) else data
        results = partial(results_of, self, data=batch, of_atoms=compute_energies)
        if not any(wanted):
            return results(self._read(data, head))
        with torch.inference_mode(False), torch.enable_grad():
            atoms = self._read(data, head)
            out = with_derivatives(results, functions_at_once(self, atoms), atoms, create_graph, *wanted)
        return out if create_graph else {name: value.detach() for name, value in out.items()}

    @without_autocast
    def atomic_outputs(self, data: Data | Prepared, *, head: str | None = None) -> Tensor:
        """What is learned of each atom (n, readout_irreps.dim), in the dtype of the model, without shift and scale.

        Args:
            data, head: As in :meth:`forward`.

        Raises:
            ValueError: an attribute of ``data`` is missing or wrong; it is named.
        """
        return learned_of(self, self._read(data, head))

    def _read(self, data: Data | Prepared, head: str | None) -> Atoms:
        if isinstance(data, Prepared):
            return data.atoms_for(self, head)
        atoms, heads = read_atoms(data, self.species_of_number, self.dtype), self.hyperparameters["heads"]
        atoms = replace(atoms, head=heads_of(data, head, heads, atoms.num_structures))
        if self.validate and not is_traced(atoms.vectors) and not is_captured(atoms.vectors):
            check_values(data, atoms, self.atomic_numbers, self.cutoff, heads, self.moments is not None)
        return atoms

    def _apply(self, fn, recurse=True):
        """Moves the module, but keeps shift and scale at float64, whatever the parameters are cast to."""
        shift, scale = self.shift, self.scale
        super()._apply(fn, recurse)
        self.shift, self.scale = shift.to(self.shift.device), scale.to(self.scale.device)
        return self

    def with_head(self, head: str | None = None) -> Potential:
        """A copy that has one head only, and so no ``heads``: what programs take that know nothing of heads.

        Args:
            head: The name of the head; the first if it is None.

        Raises:
            ValueError: there is no such head.
        """
        return with_head(self, head)

    def save(self, path: _file.File) -> None:
        """Writes hyperparameters, weights and ``metadata`` to a file, or what is open for bytes, for :meth:`load`."""
        _file.write(path, self.hyperparameters, self.state_dict(), self.metadata)

    @classmethod
    def load(cls, path: _file.File, map_location: torch.device | str = "cpu", **overrides: Any) -> Potential:
        """The potential that :meth:`save` wrote to a file, or a training to ``potential.pt`` in its run folder.

        It is in evaluation mode; ``overrides`` replace hyperparameters.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is of something else, cut short, or of a later format.
        """
        saved = _file.read(path, map_location)
        potential = cls(**{**saved["hyperparameters"], **overrides})
        potential.load_state_dict(saved["state_dict"])
        potential.metadata = saved["metadata"]
        return potential.to(map_location).eval()

    def extra_repr(self) -> str:
        shown = ("species", "cutoff", "hidden_irreps", "dtype", *(["heads"] if self.hyperparameters["heads"] else []))
        return ", ".join(f"{name}={self.hyperparameters[name]}" for name in shown)
