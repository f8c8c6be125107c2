"""SevenNet's models as CUDA graphs, and its sums without a question to the GPU."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from sevenn import _keys as keys
from sevenn.nn import force_output, linear, sequential
from torch import Tensor

from ._captured import Captured, shared_out
from ._replacement import Replacement
from ._replay import Data

LEAST_VOLUME = 1e-3
"""A^3, which SevenNet takes for that of a structure without a cell."""
OTHERS = (keys.NLOCAL, keys.NODE_FEATURE_GHOST, keys.DATA_MODALITY)
"""What a graph does not know."""


class AtomReduce(Replacement, linear.AtomReduce):
    """The sum over the atoms of each structure. How many structures there are is known by the shape of their list."""

    original = linear.AtomReduce

    def forward(self, data: dict[str, Any]) -> dict[str, Any]:
        if not self._is_batch_data or keys.NUM_ATOMS not in data:
            return super().forward(data)
        values = data[self.key_input].squeeze(1)
        sums = values.new_zeros(data[keys.NUM_ATOMS].numel()).index_add(0, data[keys.BATCH], values)
        data[self.key_output] = sums * self.constant
        return data


class ForceStressOutputFromEdge(Replacement, force_output.ForceStressOutputFromEdge):
    r"""Forces and stresses of derivatives of the energy by the edges' vectors,
    :math:`F_i = \sum_j (\partial E / \partial r_{ij} - \partial E / \partial r_{ji})`. How many atoms there are is
    known by the shape of their energies."""

    original = force_output.ForceStressOutputFromEdge

    def forward(self, data: dict[str, Any]) -> dict[str, Any]:
        batched = self._is_batch_data
        if keys.NLOCAL in data or keys.ATOMIC_ENERGY not in data or (batched and keys.NUM_ATOMS not in data):
            return super().forward(data)
        vectors, edges = data[self.key_edge], data[self.key_edge_idx]
        energy = data[self.key_energy].sum()
        by_vector = torch.autograd.grad(energy, vectors, create_graph=self.training, allow_unused=True)[0]
        if by_vector is None:
            return data
        atoms = by_vector.new_zeros(data[keys.ATOMIC_ENERGY].shape[0], 3)
        data[self.key_force] = atoms.index_add(0, edges[0], by_vector).index_add(0, edges[1], by_vector, alpha=-1)
        virial = torch.cat([vectors * by_vector, vectors * by_vector.roll(-1, 1)], dim=1)  # xx yy zz xy yz zx
        virials = atoms.new_zeros(atoms.shape[0], 6).index_add(0, edges[1], virial)
        if self.use_atomic_virial:
            data[self.key_atomic_virial] = -virials
        if batched:
            sums = virials.new_zeros(data[keys.NUM_ATOMS].numel(), 6).index_add(0, data[keys.BATCH], virials)
        else:
            sums = virials.sum(0)
        data[self.key_stress] = -sums / data[self.key_cell_volume].clamp(min=LEAST_VOLUME).unsqueeze(-1)
        return data


class AtomGraphSequential(Captured, sequential.AtomGraphSequential):
    """A whole model, with its forces and stress."""

    original = sequential.AtomGraphSequential
    prepared = (*Captured.prepared, "_species")
    by_edge: ClassVar = {keys.EDGE_IDX: 1, keys.EDGE_VEC: 0}
    by_atom = (keys.BATCH, keys.ATOMIC_NUMBERS, keys.NODE_FEATURE, keys.NODE_ATTR)
    by_structure = (keys.CELL_VOLUME,)
    read = (keys.EDGE_VEC, keys.EDGE_IDX, keys.ATOMIC_NUMBERS, keys.NUM_ATOMS)

    def prepare(self) -> None:
        super().prepare()
        self._species: dict[torch.device, Tensor] = {}

    def _atomic_numbers_to_onehot(self, atomic_numbers: Tensor) -> Tensor:
        """Species (n,). Their list stays on the GPU: copies from the host cannot be captured."""
        device = atomic_numbers.device
        if device not in self._species:
            self._species[device] = self.z_to_onehot_tensor.to(device)
        return self._species[device][atomic_numbers]

    def serves_other_numbers(self) -> bool:
        return self.is_batch_data

    def structures(self, data: Data) -> int:
        return data[keys.NUM_ATOMS].shape[0]

    def with_one_more(self, data: Data, count: Tensor) -> Data:
        sizes = torch.cat([data[keys.NUM_ATOMS], (data[keys.BATCH].shape[0] - count).view(1)])
        return super().with_one_more(data, count) | {keys.NUM_ATOMS: sizes}

    def longest_edge(self) -> float:
        return float(self.cutoff)

    @staticmethod
    def completed(data: Data, count: Tensor, cutoff: float) -> Data:
        """Structures whose edges from number `count` on join an atom with itself, by a vector as long as the cutoff.
        There SevenNet's cutoff functions and their derivatives are zero; beyond it they are not."""
        vectors = data[keys.EDGE_VEC]
        is_own, edge_index, _ = shared_out(data[keys.EDGE_IDX], count, data[keys.ATOMIC_NUMBERS].shape[0])
        far = cutoff * torch.nn.functional.one_hot(torch.zeros((), dtype=torch.int64, device=vectors.device), 3)
        return {
            **data,
            keys.EDGE_IDX: edge_index,
            keys.EDGE_VEC: torch.where(is_own[:, None], vectors, far.to(vectors)),
        }

    def uncaptured(self, data: Any, options: dict[str, Any]) -> str:
        others = [name for name in OTHERS if name in data]
        if others:
            return f"data has {', '.join(others)}"
        forces = [each for each in self if isinstance(each, ForceStressOutputFromEdge)]
        return "" if forces and self.key_grad == keys.EDGE_VEC else "its forces are not those of the edges' vectors"

    def inputs(self, data: Any) -> Data:
        names = *self.by_edge, *self.by_atom, *self.by_structure, keys.NUM_ATOMS
        return {name: data[name] for name in names if name in data}

    def is_returned(self, name: str) -> bool:
        return not name.startswith("edge")

    def results(self, data: Any, found: dict) -> Any:
        """As in SevenNet, they are put to the data."""
        for name, value in found.items():
            if value is not None:
                data[name] = value
        return data
