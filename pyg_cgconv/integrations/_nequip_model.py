"""NequIP's models as CUDA graphs."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, ClassVar

import torch
from nequip.data import AtomicDataDict, get_field_type
from nequip.nn import ForceStressOutput
from nequip.nn import GraphModel as _GraphModel
from torch import Tensor

from ._captured import Captured, beyond, shared_out
from ._replay import Data

POSITIONS, EDGES, SHIFTS = (
    AtomicDataDict.POSITIONS_KEY,
    AtomicDataDict.EDGE_INDEX_KEY,
    AtomicDataDict.EDGE_CELL_SHIFT_KEY,
)
CELL, BATCH, STRESS = AtomicDataDict.CELL_KEY, AtomicDataDict.BATCH_KEY, AtomicDataDict.STRESS_KEY
SIZES = AtomicDataDict.NUM_NODES_KEY
OTHERS = (
    AtomicDataDict.EDGE_VECTORS_KEY,
    AtomicDataDict.EDGE_TRANSPOSE_PERM_KEY,
    AtomicDataDict.LMP_MLIAP_DATA_KEY,
    AtomicDataDict.NUM_LOCAL_GHOST_NODES_KEY,
)
"""What a graph does not know."""
KINDS = "node", "graph"
"""NequIP's names of what belongs to atoms and to structures."""
field_type = partial(get_field_type, error_on_unregistered=False)


class GraphModel(Captured, _GraphModel):
    """A whole model, with its forces and stress."""

    original = _GraphModel
    by_edge: ClassVar = {EDGES: 1, SHIFTS: 0}
    read = (POSITIONS, EDGES, SHIFTS, CELL)
    prepared = (*Captured.prepared, "_derivatives", "by_atom", "by_structure")

    def prepare(self) -> None:
        super().prepare()
        of_atoms, of_structures = (
            [name for name in self.model_input_fields if field_type(name) == kind] for kind in KINDS
        )
        self.by_atom = BATCH, *(name for name in of_atoms if name != BATCH)
        self.by_structure = tuple(name for name in of_structures if name != SIZES)
        self._derivatives = [each for each in self.modules() if isinstance(each, ForceStressOutput)]

    def serves_other_numbers(self) -> bool:
        known = {SIZES, *self.by_edge, *self.by_atom, *self.by_structure, *OTHERS}
        return known.issuperset(self.model_input_fields)

    def structures(self, data: Data) -> int:
        return data[SIZES].shape[0]

    def with_one_more(self, data: Data, count: Tensor) -> Data:
        sizes = torch.cat([data[SIZES], (data[BATCH].shape[0] - count).to(data[SIZES].dtype).view(1)])
        return super().with_one_more(data, count) | {SIZES: sizes}

    def longest_edge(self) -> float:
        return float(self.metadata.get("r_max", "nan"))

    @staticmethod
    def completed(data: Data, count: Tensor, cutoff: float) -> Data:
        """Structures whose edges from number `count` on join an atom with an image of its own beyond the cutoff, which
        counts nothing. Structures without a cell get one, of which only those edges know."""
        cells = data[CELL].view(-1, 3, 3)
        own_cell = 2 * cutoff * torch.eye(3, dtype=cells.dtype, device=cells.device)
        cells = torch.where((cells == 0).all(2, True).all(1, True), own_cell, cells)
        is_own, edge_index, atom = shared_out(data[EDGES], count, data[POSITIONS].shape[0])
        shifts = beyond(cells, cutoff)[data[BATCH][atom]].to(data[SHIFTS].dtype)
        shifts = torch.where(is_own[:, None], data[SHIFTS], shifts)
        return {**data, EDGES: edge_index, SHIFTS: shifts, CELL: cells.view(data[CELL].shape)}

    def uncaptured(self, data: Data, options: dict[str, Any]) -> str:
        if not any(each.do_derivatives for each in self._derivatives) or data[POSITIONS].requires_grad:
            return "gradients may be asked of its energy"
        if math.isnan(self._cutoff):
            return "the model does not know its r_max"
        others = [name for name in OTHERS if name in data]
        return f"data has {', '.join(others)}" if others else ""

    def inputs(self, data: Data) -> Data:
        """With the structure of each atom, if there is but one."""
        result = {name: data[name] for name in self.model_input_fields if name in data}
        if BATCH not in data:
            atoms = data[EDGES].new_full((data[POSITIONS].shape[0],), 0)
            result |= {BATCH: atoms, SIZES: data[EDGES].new_full((1,), len(atoms))}
        return result

    def is_returned(self, name: str) -> bool:
        return field_type(name) in KINDS

    def results(self, data: Data, found: dict) -> dict:
        """The stress of a structure without a volume is not a number, as it is in NequIP."""
        if STRESS in found:
            flat = data[CELL].view(-1, 3, 3).abs().amax((1, 2), keepdim=True) == 0
            found[STRESS] = found[STRESS].masked_fill(flat, torch.nan)
        return found | {name: data[name] for name in self.model_input_fields if name in data}
