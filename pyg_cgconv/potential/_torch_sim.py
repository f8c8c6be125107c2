"""Potentials in torch-sim, which simulates many structures in one batch."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from ._given import for_inference
from ._neighbors import radius_graph
from ._potential import Potential
from ._replay import Replay

try:
    from torch_sim import SimState
    from torch_sim.models.interface import ModelInterface
except ImportError as error:
    raise ImportError(
        "TorchSimModel needs torch-sim: pip install torch-sim-atomistic, or pip install 'pyg-cgconv[torch-sim]' "
        f"({error})"
    ) from error


class TorchSimModel(ModelInterface):
    """A :class:`~pyg_cgconv.Potential` as a model of `torch-sim <https://github.com/TorchSim/torch-sim>`_.

    It computes all structures of a state at once. Neighbours are looked for within cutoff + ``skin``, for each
    structure by itself, and again only for those in which an atom has moved by more than half of the skin:
    :class:`BatchedList`. On a GPU, energies, forces and stresses of small batches are a CUDA graph, captured once and
    then launched as a whole, for as long as the numbers of atoms and structures stay.

    Args:
        potential: The potential, of which a copy is made; or the path of a file that :meth:`Potential.save` wrote; or
            that of a run folder.
        device: Where to compute; where the potential is, if None (the CPU for a file).
        dtype: float32 or float64 (or their names); the potential's if None.
        skin: By how much neighbours are looked for beyond the cutoff, Angstrom; with 0 each step has new lists.
        compute_forces: Whether there are forces.
        compute_stress: Whether there are stresses. Each structure then needs a cell with a volume.
        capture: Whether CUDA graphs are used where they help, on a GPU with up to 100,000 pairs. Where sizes change so
            often that it does not pay, a warning says so, and no more are captured.
        head: The name of the head of a potential that has several; its first if None, with a warning.

    Attributes:
        potential: The model's own potential.
        neighbors: The :class:`BatchedList`.

    Raises:
        ImportError: torch-sim is not installed.
        TypeError: ``potential`` is neither a potential nor a path.
        ValueError: an argument makes no sense, or a file holds no potential.

    Example::

        import torch_sim as ts
        from pyg_cgconv.potential import TorchSimModel

        model = TorchSimModel("runs/demo", device="cuda", compute_stress=False)
        final = ts.integrate(
            system=[molecule] * 100,  # of ASE
            model=model,
            integrator=ts.nvt_langevin,
            n_steps=1000,
            timestep=0.0005,
            temperature=300,
        )
    """

    def __init__(
        self,
        potential: Potential | str | os.PathLike,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
        skin: float = 0.5,
        compute_forces: bool = True,
        compute_stress: bool = True,
        capture: bool = True,
        head: str | None = None,
    ):
        super().__init__()
        self.potential = for_inference(potential, device, dtype, head)
        self.potential.validate = False  # species are checked with each new list, and the neighbours are the right ones
        self.neighbors = BatchedList(self.potential, skin)
        self._compute_forces, self._compute_stress = bool(compute_forces), bool(compute_stress)
        self._capture = bool(capture)
        self._replay = self._new_replay()

    def _new_replay(self) -> Replay | None:
        return Replay(self.potential) if self._capture and self.device.type == "cuda" else None

    def _apply(self, fn, recurse=True):
        """Moves the module; a graph knows where its weights were."""
        super()._apply(fn, recurse)
        self._replay = self._new_replay()
        return self

    @property
    def device(self) -> torch.device:
        """Where the potential is."""
        return self.potential.shift.device

    @property
    def dtype(self) -> torch.dtype:
        """That of forces and stresses; energies are float64."""
        return self.potential.dtype

    @property
    def compute_forces(self) -> bool:
        """Whether there are forces."""
        return self._compute_forces

    @compute_forces.setter
    def compute_forces(self, compute_forces: bool) -> None:
        self._compute_forces = bool(compute_forces)

    @property
    def compute_stress(self) -> bool:
        """Whether there are stresses."""
        return self._compute_stress

    @compute_stress.setter
    def compute_stress(self, compute_stress: bool) -> None:
        self._compute_stress = bool(compute_stress)

    def forward(self, state: SimState | dict[str, Any], **unknown: Any) -> dict[str, Tensor]:
        """Energies and their derivatives of B structures with n atoms in all.

        Args:
            state: A state of torch-sim, or its ``positions`` (n, 3), ``cell`` (B, 3, 3) with lattice vectors as
                columns, ``pbc``, ``atomic_numbers`` (n,) and ``system_idx`` (n,) as a dict. It is not changed.

        Returns:
            ``energy`` (B,) float64, eV; ``forces`` (n, 3), eV/Angstrom; ``stress`` (B, 3, 3), eV/Angstrom^3, positive
            where the structure wants to shrink, as ASE and torch-sim have it.

        Raises:
            TypeError: an argument has an unknown name.
            ValueError: an element is unknown, or a structure without a volume is asked for its stress.
        """
        if unknown:
            raise TypeError(f"{sorted(unknown)}: no arguments of this model, which takes a state")
        if isinstance(state, dict):
            state = SimState(**{"masses": torch.ones_like(state["positions"][:, 0]), **state})
        data = self.neighbors(state, with_cell=self._compute_stress)
        forces, stress = self._compute_forces, self._compute_stress
        with torch.no_grad():
            if self._replay and forces and self._replay.serves(data, stress):
                replayed = self._replay(data, stress)  # where the next call puts its results, too
                out = {name: value.clone() for name, value in replayed.items()}
            else:
                out = self.potential(data, compute_forces=forces, compute_stress=stress, create_graph=False)
        return {name: out[name] for name in ("energy", "forces", "stress") if name in out}


class BatchedList:
    r"""Neighbours within :math:`r_c + s` of each structure of a batch, until an atom of it has moved more than
    :math:`s / 2`.

    An atom that leaves its cell and comes in again on the other side has not moved by that. Another cell or other atoms
    make new lists.

    Args:
        potential: What the neighbours are for; its device is theirs.
        skin: :math:`s`, Angstrom.

    Attributes:
        builds: Number of structures whose neighbours were looked for.
    """

    def __init__(self, potential: Potential, skin: float):
        if not 0 <= skin < float("inf"):
            raise ValueError(f"skin: expected zero or a positive number of Angstrom, got {skin}")
        self.potential, self.skin, self.builds = potential, float(skin), 0
        self._lists: list[tuple[Tensor, Tensor]] = []
        self._data: Data | None = None  # of the last call, with positions when the lists were made
        self._pbc = torch.zeros(3, dtype=torch.bool)

    def __call__(self, state: SimState, with_cell: bool = True) -> Data:
        """The batch as a potential reads it. ``with_cell``: also where no direction is periodic.

        Raises:
            ValueError: an element is unknown.
        """
        device = self.potential.shift.device
        pos, cell, z, batch = (
            each.detach().to(device)
            for each in (state.positions, state.row_vector_cell, state.atomic_numbers, state.system_idx)
        )
        pos, cell = pos.double(), cell.double()
        pbc = torch.as_tensor(state.pbc, dtype=torch.bool).cpu().reshape(-1).expand(3)
        if self._are_others(pos, cell, z, batch, pbc):
            self._check_species(z)
            self._data = Data(z=z.clone(), pos=pos.clone(), cell=cell.clone(), batch=batch.clone())
            self._pbc = pbc.clone()
            self._search(pos, list(range(len(cell))), new=True)
        else:
            assert self._data is not None
            pos = self._unwrapped(pos)
            moved = (pos - self._data.pos).square().sum(-1)
            farthest = torch.zeros(len(cell), dtype=pos.dtype, device=device).scatter_reduce_(0, batch, moved, "amax")
            near = farthest <= (self.skin / 2) ** 2  # not so for NaN, which the search then reports
            self._search(pos, (~near).nonzero().flatten().tolist())
        return self._graph(pos, with_cell)

    def _are_others(self, pos: Tensor, cell: Tensor, z: Tensor, batch: Tensor, pbc: Tensor) -> bool:
        """Whether all lists are made anew."""
        known = self._data
        return (
            known is None
            or known.pos.device != pos.device
            or len(known.cell) != len(cell)
            or not torch.equal(known.z, z)
            or not torch.equal(known.batch, batch)
            or not torch.equal(known.cell, cell)
            or not torch.equal(self._pbc, pbc)
        )

    def _unwrapped(self, pos: Tensor) -> Tensor:
        """Positions, less the lattice vectors by which atoms were put back into their cells since the lists were
        made."""
        data = self._data
        assert data is not None
        if not self._pbc.all():  # torch-sim moves atoms by lattice vectors where all directions are periodic
            return pos
        moved = torch.linalg.solve(data.cell.mT[data.batch], (pos - data.pos)[..., None])[..., 0]
        return pos - torch.einsum("ns,nsx->nx", moved.round(), data.cell[data.batch])

    def _search(self, pos: Tensor, structures: list[int], new: bool = False) -> None:
        data = self._data
        assert data is not None
        if new:
            self._lists = [(data.batch.new_empty(2, 0), data.pos.new_empty(0, 3))] * len(data.cell)
        if not structures:
            return
        reach = self.potential.cutoff + self.skin
        first = torch.cat([data.batch.new_zeros(1), data.batch.bincount(minlength=len(data.cell)).cumsum(0)]).tolist()
        for number in structures:
            rows = slice(first[number], first[number + 1])
            cell = data.cell[number] if self._pbc.any() else None
            edges, shift = radius_graph(pos[rows], reach, cell, self._pbc)
            self._lists[number] = edges + first[number], shift
            data.pos[rows] = pos[rows]
            self.builds += 1
        data.edge_index = torch.cat([edges for edges, _ in self._lists], dim=1)
        data.edge_shift = torch.cat([shift for _, shift in self._lists])
        data.ptr = torch.tensor(first)

    def _graph(self, pos: Tensor, with_cell: bool) -> Data:
        """Edges are the same tensor as long as they are the same, so that layers sort them once."""
        data = self._data
        assert data is not None
        graph = Data(z=data.z, pos=pos, edge_index=data.edge_index, batch=data.batch, ptr=data.ptr)
        if with_cell or self._pbc.any():
            graph.cell, graph.edge_shift = data.cell, data.edge_shift
        return graph

    def _check_species(self, z: Tensor) -> None:
        known = self.potential.hyperparameters["species"]
        unknown = sorted(set(z.tolist()).difference(known))
        if unknown:
            raise ValueError(f"state.atomic_numbers: the potential was made for {known} and does not know {unknown}")
