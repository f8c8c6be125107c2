"""An equivariant interatomic potential: energy, forces and stress of molecules and crystals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.utils import scatter

from .._checks import whole_numbers
from .._functions import without_autocast
from .._torch import in_forward_mode, is_traced, is_transformed
from ..cuda_graphs import is_captured
from ..nn import (
    BesselBasis,
    Gate,
    Linear,
    PolynomialCutoff,
    one_hot,
    wanted_irreps,
)
from . import _file
from ._arguments import (
    MAX_ATOMIC_NUMBER,
    atomic_numbers,
    check_energy_readout,
    floating_dtype,
    hidden_irreps_of,
    per_species,
    positive_or_none,
    readout_features,
)
from ._atoms import Atoms, check_values, read_atoms
from ._blocks import interaction_blocks
from ._derivatives import atomic_virials, forces, virial, volume, with_slope
from ._ghosts import Ghosts
from ._rounds import rounds


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
        avg_num_neighbors: Mean number of neighbours of an atom in the training data; messages are divided by its root.
        readout_irreps: What :meth:`atomic_outputs` gives each atom. Anything but a single scalar, "0e", makes a model
            of other properties than the energy.
        shift: Energy of an isolated atom, eV: one number, one for each species in their order, or by species in a dict.
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
        avg_num_neighbors: float = 1.0,
        readout_irreps: str | o3.Irreps = "0e",
        shift: float | Sequence[float] | Mapping = 0.0,
        scale: float | Sequence[float] | Mapping = 1.0,
        dtype: torch.dtype | str | None = None,
        backend: str = "auto",
    ):
        super().__init__()
        dtype = floating_dtype(dtype)
        numbers = atomic_numbers(species)
        if lmax < 0:
            raise ValueError(f"lmax: expected 0 or more, got {lmax}")
        hidden = hidden_irreps_of(channels, lmax, parity) if hidden_irreps is None else o3.Irreps(hidden_irreps)
        if layers < 1:
            raise ValueError(f"layers: expected at least 1, got {layers}")
        if not hidden.count("0e"):
            raise ValueError(f"hidden_irreps: expected even scalars (0e), from which the energy is read, got {hidden}")
        shift, scale = per_species("shift", shift, numbers), per_species("scale", scale, numbers)
        self.hyperparameters: dict[str, Any] = {
            "species": numbers,
            "cutoff": float(cutoff),
            "lmax": int(lmax),
            "layers": int(layers),
            "hidden_irreps": str(hidden),
            "products": bool(products),
            "radial_species": bool(radial_species),
            "num_radial": int(num_radial),
            "radial_hidden": whole_numbers("radial_hidden", radial_hidden),
            "cutoff_power": int(cutoff_power),
            "avg_num_neighbors": float(avg_num_neighbors),
            "readout_irreps": str(o3.Irreps(readout_irreps)),
            "shift": shift,
            "scale": scale,
            "dtype": str(dtype).removeprefix("torch."),
            "backend": backend,
        }
        self.metadata: dict = {}
        self.cutoff, self.validate = float(cutoff), True
        self._edges_at_a_time: int | None = None
        self.register_buffer("atomic_numbers", torch.tensor(numbers))
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float64))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float64))
        species_of_number = torch.full((MAX_ATOMIC_NUMBER + 2,), -1)  # the last row serves numbers beyond the table
        species_of_number[numbers] = torch.arange(len(numbers))
        self.register_buffer("species_of_number", species_of_number, persistent=False)

        self.irreps_sh = o3.Irreps.spherical_harmonics(lmax)
        self.basis, self.envelope = BesselBasis(cutoff, num_radial), PolynomialCutoff(cutoff, cutoff_power)
        linear = partial(Linear, layout="ir_mul", fused=backend != "reference")  # the faster layout
        scalars = o3.Irreps([(hidden.count("0e"), "0e")])
        self.embedding = linear([(len(numbers), "0e")], scalars)
        wanted = wanted_irreps(hidden, readout_features(hidden, readout_irreps), self.irreps_sh, layers)
        self.blocks = interaction_blocks(self.hyperparameters, scalars, self.irreps_sh, wanted)
        irreps = readout_features(self.blocks[-1].irreps_out, readout_irreps)
        gate = Gate([(max(1, mul // 2), ir) for mul, ir in irreps], layout="ir_mul")
        self.readout = nn.Sequential(linear(irreps, gate.irreps_in), gate, linear(gate.irreps_out, readout_irreps))
        self.to(dtype)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters, in which everything but the sum of energies is computed."""
        return next(self.parameters()).dtype

    @property
    def edges_at_a_time(self) -> int | None:
        """How many edges are computed together: a large system takes the memory of so many, and 1.4 times the time.

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
        data: Data,
        *,
        compute_forces: bool = True,
        compute_stress: bool = False,
        compute_energies: bool = False,
        compute_stresses: bool = False,
        create_graph: bool | None = None,
    ) -> dict[str, Tensor]:
        r"""Energies of a batch of structures and their derivatives.

        Args:
            data: A :class:`~torch_geometric.data.Data` or Batch with ``z`` (n,) integers, ``pos`` (n, 3) in the model's
                dtype or float64, ``edge_index`` (2, E) in any order, and for crystals ``edge_shift`` (E, 3) and
                ``cell`` (B, 3, 3): what :class:`~pyg_cgconv.RadiusGraph` makes. Edges longer than the cutoff count
                nothing.
            compute_forces: Whether to compute forces, also under :func:`torch.no_grad` and in inference mode.
            compute_stress: Whether to compute the stress; needs a cell with a volume.
            compute_energies: Whether to give the energies of the atoms, too.
            compute_stresses: Whether to give the stresses of the atoms, which need the same volume.
            create_graph: Whether forces and stress can be differentiated again, for a loss on them or for a Hessian
                (``data.pos`` must then ask for gradients); by default while training. Under a transform of
                :mod:`torch.func` and in forward mode they always can.

        Returns:
            ``energy`` (B,) float64; ``forces`` (n, 3); ``stress`` (B, 3, 3), symmetric, with ASE's sign: positive where
            the structure wants to shrink, V times it being minus the virial; ``energies`` (n,) float64, which sum to
            ``energy``; ``stresses`` (n, 3, 3), which sum to ``stress``. Without ``create_graph``, energies that come
            with forces or stress are detached.

        Raises:
            ValueError: an attribute of ``data`` is missing or wrong; it is named.
        """
        check_energy_readout(self.hyperparameters["readout_irreps"])
        if is_transformed() or in_forward_mode():
            create_graph = True  # others differentiate what this returns
        elif create_graph is None:
            create_graph = self.training and torch.is_grad_enabled()
        if not (compute_forces or compute_stress or compute_stresses):
            return self._energies(self._read(data), compute_energies)
        with torch.inference_mode(False), torch.enable_grad():
            atoms = self._read(data)
            if compute_stress or compute_stresses:
                cell_volume = volume(atoms.cell)
            out, gradient = with_slope(partial(self._energies, of_atoms=compute_energies), atoms, create_graph)
            if compute_forces:
                out["forces"] = forces(gradient, atoms)
            if compute_stress:
                out["stress"] = virial(gradient, atoms) / cell_volume.to(gradient.dtype)
            if compute_stresses:
                out["stresses"] = atomic_virials(gradient, atoms) / cell_volume.to(gradient.dtype)[atoms.structure]
        return out if create_graph else {name: value.detach() for name, value in out.items()}

    @without_autocast
    def atomic_outputs(self, data: Data) -> Tensor:
        """What is learned of each atom (n, readout_irreps.dim), in the dtype of the model, without shift and scale.

        Args:
            data: As in :meth:`forward`.

        Raises:
            ValueError: an attribute of ``data`` is missing or wrong; it is named.
        """
        return self._outputs(self._read(data))

    def _read(self, data: Data) -> Atoms:
        atoms = read_atoms(data, self.species_of_number, self.dtype)
        if self.validate and not is_traced(atoms.vectors) and not is_captured(atoms.vectors):
            check_values(data, atoms, self.atomic_numbers, self.cutoff)
        return atoms

    def _energies(self, atoms: Atoms, of_atoms: bool) -> dict[str, Tensor]:
        """Total energies (B,) and, if asked for, those ``of_atoms`` (n,), in float64."""
        energies = self._energies_of_atoms(atoms)
        total = {"energy": scatter(energies, atoms.structure, dim_size=atoms.num_structures)}
        return total | {"energies": energies} if of_atoms else total

    def _energies_of_atoms(self, atoms: Atoms, ghosts: Ghosts | None = None) -> Tensor:
        """(n,) float64; without the ``ghosts`` among the atoms, if there are some."""
        learned = self._outputs(atoms, ghosts).squeeze(-1).double()
        species = atoms.species[: len(learned)]
        return self.shift[species] + self.scale[species] * learned

    def _outputs(self, atoms: Atoms, ghosts: Ghosts | None = None) -> Tensor:
        update = rounds(self, atoms, None if ghosts is None else ghosts.owned)
        x = self.embedding(one_hot(atoms.species, len(self.atomic_numbers), self.dtype))
        if ghosts is not None:  # whose species are known
            x = (x, x[: ghosts.owned])
        for number, block in enumerate(self.blocks):
            if ghosts is not None and number:
                x = ghosts.pair(x)
            x = update(block, x)
        return self.readout(x)

    def _apply(self, fn, recurse=True):
        """Moves the module, but keeps shift and scale at float64, whatever the parameters are cast to."""
        shift, scale = self.shift, self.scale
        super()._apply(fn, recurse)
        self.shift, self.scale = shift.to(self.shift.device), scale.to(self.scale.device)
        return self

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
        shown = ("species", "cutoff", "hidden_irreps", "dtype")
        return ", ".join(f"{name}={self.hyperparameters[name]}" for name in shown)
